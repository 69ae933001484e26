"""Small recordings and fake corpora that the tests of the corpora share."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def shared_data():
    """A function that gives the folder of a real corpus, or skips the test."""

    def find(corpus):
        if not (SHARED / corpus).is_dir():
            pytest.skip(f"{SHARED / corpus} is not here")
        return SHARED / corpus

    return find


@pytest.fixture
def recording():
    """A function that writes noise, low-passed enough for lossy codecs to keep."""

    def write(path, seconds=0.5, rate=16000, channels=1, seed=0, level=0.1, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        samples = generator.normal(size=(round(seconds * rate) + 32, channels))
        window = np.hanning(33)[:, None]
        smooth = sum(
            window[shift] * samples[shift : shift + len(samples) - 32]
            for shift in range(33)
        )
        smooth *= level / np.abs(smooth).max()
        soundfile.write(path, smooth, rate, **options)
        return path

    return write


@pytest.fixture
def kaldi_corpus(tmp_path):
    """A function that writes a corpus of Kaldi tables, a speaker an utterance."""

    def write(wavs):
        root = tmp_path / "speechocean762"
        utts = sorted(wavs)
        # One to test; of the others, a speaker becomes valid.
        for part, part_utts in (("train", utts[1:]), ("test", utts[:1])):
            (root / part).mkdir(parents=True)
            for table, value in (("wav.scp", str), ("utt2spk", lambda wav: wav.stem)):
                lines = [f"{utt} {value(wavs[utt])}\n" for utt in part_utts]
                (root / part / table).write_text("".join(lines), encoding="utf-8")
        return root

    return write
