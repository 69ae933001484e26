"""Log-Mel frames of real speech for the benchmarks, computed once and kept.

80 bands, 25/10 ms, 16 kHz, through SpeechBrain's Fbank, zero mean and unit variance of
each band over its utterance. Splits are by speaker: those of
``speechbrain_vae.dataio.speechocean762``.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from speechbrain_vae.dataio import audio, speechocean762
from speechbrain_vae.lobes.features import LogMel

DATA_FOLDER = Path(__file__).resolve().parents[2] / "shared/data/speechocean762"
SPLITS = ("train", "valid", "test")


@dataclass
class Frames:
    """Frames of one split, utterance after utterance.

    Arguments
    ---------
    features : torch.Tensor
        Shape [N, 80].
    counts : list of int
        Frames of each utterance.
    speakers : list of str
        Speaker of each utterance.
    """

    features: torch.Tensor
    counts: list
    speakers: list

    def __len__(self):
        return len(self.features)

    def sample(self, number, seed=0):
        """A random choice of frames, shape [number, 80]."""
        generator = torch.Generator().manual_seed(seed)
        return self.features[torch.randperm(len(self), generator=generator)[:number]]

    def batches(self, size, epochs, seed=0):
        """Shuffled batches [size, 80], a whole number of times over all frames."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            order = torch.randperm(len(self), generator=generator)
            for start in range(0, len(order) - size + 1, size):
                yield self.features[order[start : start + size]]


def load_frames(data_folder=None, cache=None):
    """Frames of every split.

    Arguments
    ---------
    data_folder : str or Path, optional
        Root of speechocean762; ``../shared/data`` beside the repository by default.
    cache : str or Path, optional
        Folder where frames are kept; the system's temporary folder by default.

    Returns
    -------
    dict of str to Frames
        ``train``, ``valid`` and ``test``, with no speaker in common.
    """
    data_folder = Path(data_folder or DATA_FOLDER).resolve()
    if not data_folder.is_dir():
        raise SystemExit(
            f"benchmarks: there is no folder {data_folder}; give the root of "
            "speechocean762 (https://www.openslr.org/101) with --data_folder"
        )
    features = LogMel()
    key = hashlib.sha256(f"{data_folder} {features.settings}".encode()).hexdigest()
    folder = Path(cache or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"speechbrain-vae-frames-{key[:12]}.pt"
    if path.is_file():
        saved = torch.load(path, mmap=True)
    else:
        splits = speechocean762.splits(data_folder)
        saved = {name: _compute(splits[name], features) for name in SPLITS}
        # Written aside first, so that a process that is killed leaves no half file.
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        torch.save(saved, unfinished)
        unfinished.replace(path)
    return {name: Frames(**saved[name]) for name in SPLITS}


def _compute(entries, features):
    frames = [
        features(audio.load(entry["wav"])[None])[0][0] for entry in entries.values()
    ]
    return {
        "features": torch.cat(frames),
        "counts": [len(utterance) for utterance in frames],
        "speakers": [entry["spk_id"] for entry in entries.values()],
    }
