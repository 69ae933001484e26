"""The worker process of the synthetic corpus: says sentences, writes FLAC.

:mod:`speechbrain_vae.dataio.synthetic` starts it as ``python -m`` and sends one JSON
line for each speaker; it answers with one line when the speaker is on disk. It
ends with its input, so it does not outlive its parent. It needs neither torch nor
the caller's ``__main__``, so it starts in half a second and caller scripts need no
guard.

Authors
 * speechbrain-vae contributors 2026
"""

import contextlib
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from speechbrain_vae.dataio import espeak
from speechbrain_vae.dataio.manifests import stable_hash, write_json
from speechbrain_vae.dataio.synthetic import TABLE
from speechbrain_vae.dataio.synthetic_grammar import sentence

SAMPLE_RATE = 16000

_UP, _DOWN = 320, 441
_SHORTEST, _LONGEST = 2.0, 6.0
_LABEL_DECIMALS = 4


@dataclass
class Traits:
    """What makes a speaker more than a variant of the library.

    Arguments
    ---------
    rate : int
        Words a minute.
    pitch, pitch_range : int
        As :func:`speechbrain_vae.dataio.espeak.synthesise` takes them.
    """

    rate: int
    pitch: int
    pitch_range: int

    @classmethod
    def draw(cls, rng):
        """Traits of a new speaker."""
        return cls(rng.randint(145, 185), rng.randint(38, 62), rng.randint(35, 65))

    def vary(self, rng):
        """Traits of one utterance of the speaker."""
        return Traits(
            self.rate + rng.randint(-8, 8),
            self.pitch + rng.randint(-4, 4),
            self.pitch_range + rng.randint(-8, 8),
        )


def write_speaker(folder, variant, seconds, seed):
    """Generate all utterances of one speaker: the table is written last.

    Arguments
    ---------
    folder : str or Path
        Where the FLAC files and the table go.
    variant : str
        Voice of the speaker.
    seconds : float
        How much speech, up to half an utterance more or less.
    seed : int
        Together with the variant it determines every byte.

    Returns
    -------
    int
        Number of utterances.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    traits = Traits.draw(_generator(variant, seed))
    table, total, index = {}, 0.0, 0
    # Half an utterance early, so that the sum over speakers is right on average.
    while not table or total < seconds - 0.25 * (_SHORTEST + _LONGEST):
        rng = _generator(f"{variant}-{index}", seed)
        utterance, wav = _utterance(rng, variant, traits)
        index += 1
        if utterance is None:
            continue
        name = f"{variant.lower()}-{len(table):04d}"
        path = folder / f"{name}.flac"
        _write_flac(path, wav)
        total += len(wav) / SAMPLE_RATE
        table[name] = {**utterance, "bytes": path.stat().st_size}
    settings = {"variant": variant, "seconds": seconds, "seed": seed}
    write_json(folder / TABLE, {"settings": settings, "utterances": table})
    return len(table)


def _generator(text, seed):
    return random.Random(int(stable_hash(text, seed), 16))


def _utterance(rng, variant, traits):
    """Times and samples of one utterance; ``None`` twice if its length does not fit."""
    text = sentence(rng)
    data, events = espeak.synthesise(
        text, variant, seed=rng.getrandbits(31), **vars(traits.vary(rng))
    )
    samples = np.frombuffer(data, dtype="=i2")
    phones, words = espeak.phone_times(samples, events, text)
    lead, trail = (rng.randint(2000, 6000) for _ in range(2))
    noise = np.random.default_rng(rng.getrandbits(63))
    level_db, snr_db = rng.uniform(-18, -3), rng.uniform(25, 45)

    first, last = phones[0][0], phones[-1][1]
    speech = np.pad(samples[first:last].astype(np.float64), (lead, trail))
    if not _SHORTEST <= len(speech) / espeak.SAMPLE_RATE <= _LONGEST:
        return None, None
    wav = resample_poly(speech, _UP, _DOWN)
    wav *= 10 ** (level_db / 20) / np.abs(wav).max()
    rms = np.sqrt(np.mean(wav**2))
    wav += noise.standard_normal(len(wav)) * rms * 10 ** (-snr_db / 20)

    def seconds(sample):
        return round((sample - first + lead) / espeak.SAMPLE_RATE, _LABEL_DECIMALS)

    return {
        "words": " ".join(word.upper() for _, _, word in words),
        "phones": " ".join(phone for _, _, phone in phones),
        "phone_times": [[seconds(a), seconds(b), phone] for a, b, phone in phones],
        "word_times": [[seconds(a), seconds(b), word.upper()] for a, b, word in words],
    }, wav


def _write_flac(path, wav):
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        soundfile.write(file, wav, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(temporary, path)


def main():
    """Answer requests from standard input until it ends."""
    for line in sys.stdin:
        try:
            answer = {"utterances": write_speaker(**json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # An interrupt reaches the whole process group; the parent reports it.
    with contextlib.suppress(KeyboardInterrupt):
        main()
