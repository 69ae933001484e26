"""speechocean762: read English of Mandarin speakers, adults and children.

Zhang et al., "speechocean762: an open-source non-native English speech corpus for
pronunciation assessment", Interspeech 2021; https://www.openslr.org/101, CC BY 4.0.

Layout: ``WAVE/SPEAKER0001/000010011.WAV`` (or ``.flac``), and Kaldi tables
``train/wav.scp``, ``train/text``, ``train/utt2spk``, ..., the same in ``test/``, and
``resource/text-phone``.
"""

import csv
import gzip
import os
from collections import defaultdict
from pathlib import Path

from .manifests import group_by_split, hold_out, read_kaldi_table, resolve_root

_LAYOUT = "train/wav.scp, test/wav.scp and WAVE/SPEAKER0001/000010011.WAV (or .flac)"
_PARTS = ("train", "test")


def splits(
    data_folder: str | Path, seed: int = 1234, valid_fraction: float = 0.1
) -> dict[str, dict]:
    """The official train and test parts; valid is some of the train speakers.

    Arguments
    ---------
    data_folder : str or Path
        Root of the corpus, or the folder that holds ``speechocean762``.
    seed : int
        Seed of the choice of valid speakers.
    valid_fraction : float
        Share of the train speakers that become valid.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``, with ``words``, ``phones``
        (ARPAbet without stress and position), ``gender``, ``age`` and, where the
        corpus comes with ``alignment.tsv.gz``, ``phone_times`` and ``word_times``
        (``[start, end, label]`` in seconds; silence is in none).

    Raises
    ------
    ValueError, FileNotFoundError
        The folder has another layout.

    Example
    -------
    >>> splits("/nowhere")
    Traceback (most recent call last):
      ...
    FileNotFoundError: speechocean762: the data folder /nowhere does not exist; ...
    """
    root = resolve_root(
        data_folder,
        "speechocean762",
        _LAYOUT,
        lambda folder: all((folder / part / "wav.scp").is_file() for part in _PARTS),
        names=("speechocean762",),
    )
    pronounced = _pronounced(root / "resource" / "text-phone")
    times = _phone_times(root / "alignment.tsv.gz")
    entries, part_of = {}, {}
    for part in _PARTS:
        tables = {
            name: read_kaldi_table(root / part / name)
            for name in ("wav.scp", "text", "utt2spk", "spk2gender", "spk2age")
            if (root / part / name).is_file()
        }
        if "utt2spk" not in tables:
            raise ValueError(f"speechocean762: {root / part / 'utt2spk'} is missing")
        for utt, relative in tables["wav.scp"].items():
            speaker = tables["utt2spk"].get(utt, utt[:4])
            words = tables.get("text", {}).get(utt)
            spoken = pronounced.get(utt)
            labels = {
                "words": words,
                "phones": spoken and " ".join(spoken),
                "phone_times": times.get(utt),
                "word_times": _word_times(words, spoken, times.get(utt)),
                "gender": tables.get("spk2gender", {}).get(speaker),
                "age": tables.get("spk2age", {}).get(speaker),
            }
            entries[utt] = {"wav": _wav(root, relative), "spk_id": speaker}
            entries[utt].update({k: v for k, v in labels.items() if v is not None})
            part_of[utt] = part

    speakers = {
        entry["spk_id"] for utt, entry in entries.items() if part_of[utt] == "train"
    }
    valid = hold_out(speakers, valid_fraction, seed)

    def split_of(utt, entry):
        if part_of[utt] == "train" and entry["spk_id"] in valid:
            return "valid"
        return part_of[utt]

    return group_by_split(entries, split_of)


def _wav(root, relative):
    """The file a table names, whichever of the two releases it lies in."""
    path = os.path.join(root, relative)
    if os.path.exists(path):
        return path
    stem = os.path.splitext(path)[0]
    others = (stem + extension for extension in (".flac", ".WAV", ".wav"))
    return next((other for other in others if os.path.exists(other)), path)


def _pronounced(path):
    """Phones of each word, in text, from one line a word: ``utt.word W_B IY0_E``."""
    if not path.is_file():
        return {}
    words = defaultdict(list)
    for key, value in read_kaldi_table(path).items():
        utt, _, index = key.rpartition(".")
        plain = [phone.split("_")[0].rstrip("012") for phone in value.split()]
        words[utt].append((int(index), " ".join(plain)))
    return {utt: [phones for _, phones in sorted(w)] for utt, w in words.items()}


def _word_times(words, pronounced, phone_times):
    """From the start of a word's first phone to the end of its last.

    None where words and phones do not match one to one: an aligner may leave out what
    it does not find.
    """
    if not (words and pronounced and phone_times):
        return None
    words = words.split()
    if len(words) != len(pronounced):
        return None
    if [phone for *_, phone in phone_times] != " ".join(pronounced).split():
        return None
    times, first = [], 0
    for word, phones in zip(words, pronounced, strict=True):
        last = first + len(phones.split())
        times.append([phone_times[first][0], phone_times[last - 1][1], word])
        first = last
    return times


def _phone_times(path):
    if not path.is_file():
        return {}
    times = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            span = [float(row["start_s"]), float(row["end_s"]), row["phone"]]
            times[row["utt"]].append(span)
    return dict(times)
