"""TIMIT: read American English with phones segmented by hand, 16 kHz.

Garofolo et al., "DARPA TIMIT acoustic-phonetic continuous speech corpus", LDC93S1;
https://catalog.ldc.upenn.edu/LDC93S1.

Layout: ``TRAIN/DR1/FCJF0/SI648.WAV`` and beside it ``SI648.PHN`` and ``SI648.WRD``,
in upper or lower case; NIST SPHERE or RIFF, also as ``SI648.WAV.wav``.
"""

import os
import re
from pathlib import Path

from .manifests import audio_files, group_by_split, resolve_root

SAMPLE_RATE = 16000

# The core test set of the corpus's own documentation, and the 50 speakers of the rest
# of its test part that Kaldi and SpeechBrain use for development.
_CORE_TEST = """
fdhc0 felc0 fjlm0 fmgd0 fmld0 fnlp0 fpas0 fpkt0 mbpm0 mcmj0 mdab0 mgrt0
mjdh0 mjln0 mjmp0 mklt0 mlll0 mlnt0 mnjm0 mpam0 mtas1 mtls0 mwbt0 mwew0
"""
_DEVELOPMENT = """
fadg0 faks0 fcal1 fcmh0 fdac1 fdms0 fdrw0 fedw0 fgjd0 fjem0 fjmg0 fjsj0 fkms0
fmah0 fmml0 fnmr0 frew0 fsem0 majc0 mbdg0 mbns0 mbwm0 mcsh0 mdlf0 mdls0 mdvc0
mers0 mgjf0 mglb0 mgwt0 mjar0 mjfc0 mjsw0 mmdb1 mmdm2 mmjr0 mmwh0 mpdf0 mrcs0
mreb0 mrjm4 mrjr0 mroa0 mrtk0 mrws1 mtaa0 mtdt0 mteb0 mthc0 mwjg0
"""
CORE_TEST = frozenset(_CORE_TEST.split())
DEVELOPMENT = frozenset(_DEVELOPMENT.split())

_SENTENCE = re.compile(r"(s[aix]\d+)(\.wav|\.wav\.wav|\.flac)")
_LAYOUT = "TRAIN/DR1/FCJF0/SI648.WAV with SI648.PHN and SI648.WRD, and TEST/ alike"


def splits(data_folder: str | Path, seed: int = 1234) -> dict[str, dict]:
    """The standard 462 train, 50 development and 24 core-test speakers.

    The two SA sentences, the same for every speaker, are left out.

    Arguments
    ---------
    data_folder : str or Path
        The folder with ``TRAIN`` and ``TEST``, or one that holds it as ``TIMIT`` or
        ``data``.
    seed : int
        Not used: nothing is drawn.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``, with ``words``, ``phones`` (the
        61 of the corpus), ``word_times`` and ``phone_times``.

    Raises
    ------
    ValueError, FileNotFoundError
        The folder has another layout.

    Example
    -------
    >>> splits("/nowhere")
    Traceback (most recent call last):
      ...
    FileNotFoundError: timit: the data folder /nowhere does not exist; expected ...
    """
    root = resolve_root(
        data_folder,
        "timit",
        _LAYOUT,
        lambda folder: {"train", "test"} <= set(_folders(folder)),
        names=("TIMIT", "timit", "data", "TIMIT/data", "timit/data"),
    )
    entries, part_of = {}, {}
    for part in ("train", "test"):
        for path, relative in audio_files(_folders(root)[part], (".wav", ".flac")):
            speaker, name = ["", *relative.lower().split("/")][-2:]
            match = _SENTENCE.fullmatch(name)
            if not match or match[1].startswith("sa"):
                continue
            utt = f"{speaker}_{match[1]}"
            # The RIFF copy beside the SPHERE file wins: sorted, it comes second.
            entries[utt] = _entry(path, speaker, len(match[2].split(".")) - 1)
            part_of[utt] = part
    if not entries:
        raise ValueError(f"timit: no SI or SX sentence in {root}; expected {_LAYOUT}")

    def split_of(utt, entry):
        if part_of[utt] == "train":
            return "train"
        if entry["spk_id"] in CORE_TEST:
            return "test"
        return "valid" if entry["spk_id"] in DEVELOPMENT else None

    return group_by_split(entries, split_of)


def _folders(root):
    """Sub-folders by their names in lower case."""
    return {entry.name.lower(): entry for entry in Path(root).iterdir()}


def _entry(path, speaker, suffixes):
    stem = path
    for _ in range(suffixes):
        stem = os.path.splitext(stem)[0]
    entry = {"wav": path, "spk_id": speaker}
    for key, extension in (("phone", ".phn"), ("word", ".wrd")):
        for candidate in (stem + extension, stem + extension.upper()):
            if os.path.isfile(candidate):
                times = _read_times(candidate)
                entry[f"{key}s"] = " ".join(label for _, _, label in times)
                entry[f"{key}_times"] = times
                break
    return entry


def _read_times(path):
    """Labels with their times in seconds, from lines ``first_sample end label``."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    fields = (line.split(maxsplit=2) for line in lines if line.strip())
    return [
        [int(start) / SAMPLE_RATE, int(end) / SAMPLE_RATE, label.strip()]
        for start, end, label in fields
    ]
