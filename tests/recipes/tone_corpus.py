"""A corpus that can be learnt in seconds: every letter is a tone.

It has the layout of speechocean762, one speaker for each split.
"""

import json

import numpy as np
import soundfile

RATE = 16000
LETTERS = "ABDG "
PHONES = {"A": "AA1", "B": "B", "D": "D", "G": "G"}
SENTENCES = ("BAD DAD", "GAB A BAG")


def tones(text, seed, seconds=0.12):
    """A waveform of one tone a letter, in a little noise."""
    time = np.arange(int(RATE * seconds)) / RATE
    parts = [
        np.sin(2 * np.pi * 300 * 1.7 ** LETTERS.find(letter) * time) * (letter != " ")
        for letter in text
    ]
    noise = np.random.default_rng(seed).normal(size=len(text) * len(time))
    return np.concatenate(parts) / 4 + noise / 50


def tone_corpus(folder, sentences=SENTENCES, test=None, times=1):
    """Write the corpus; the test speaker may say other sentences.

    The speaker of the training set says every sentence so many times.
    """
    again = [sentence for sentence in sentences for _ in range(times)]
    # The seed 1234 makes the second speaker the one of the validation set.
    texts = {"0001": again, "0002": sentences, "0003": test or sentences}
    phones = []
    for part, speakers in (("train", ("0001", "0002")), ("test", ("0003",))):
        (folder / part).mkdir(parents=True)
        tables = {"wav.scp": [], "text": [], "utt2spk": []}
        for speaker in speakers:
            for number, text in enumerate(texts[speaker]):
                utt = f"{speaker}{number:05d}"
                path = f"WAVE/SPEAKER{speaker}/{utt}.flac"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                sound = tones(text or "BAD", seed=int(utt))
                soundfile.write(folder / path, sound, RATE)
                tables["wav.scp"].append(f"{utt} {path}")
                tables["text"].append(f"{utt} {text}")
                tables["utt2spk"].append(f"{utt} {speaker}")
                for index, word in enumerate(text.split()):
                    said = " ".join(f"{PHONES.get(a, a)}_I" for a in word)
                    phones.append(f"{utt}.{index} {said}")
        for name, lines in tables.items():
            (folder / part / name).write_text("\n".join(lines) + "\n")
    (folder / "resource").mkdir()
    (folder / "resource" / "text-phone").write_text("\n".join(phones) + "\n")
    return folder


def results(folder):
    """The numbers that a recipe wrote."""
    return json.loads((folder / "results.json").read_text())
