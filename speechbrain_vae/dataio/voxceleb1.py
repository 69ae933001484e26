"""VoxCeleb1: interviews of celebrities from the web, 16 kHz.

Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification
dataset", Interspeech 2017; https://www.robots.ox.ac.uk/~vgg/data/voxceleb.

Layout: ``wav/id10001/1zcIwhmdeo4/00001.wav``, the development and the test part
together or as ``dev/wav`` and ``test/wav``; ``iden_split.txt`` beside ``wav``.
"""

import logging
import re
from pathlib import Path

from .manifests import audio_files, group_by_split, hold_out, resolve_root

logger = logging.getLogger(__name__)

SPLIT_RULES = ("identification", "verification")

_UTTERANCE = re.compile(r"(?:.*/)?((id\d{5})/([^/]+)/([^/]+))\.\w+")
_IDENTIFICATION = {"1": "train", "2": "valid", "3": "test"}
_LAYOUT = "wav/id10001/1zcIwhmdeo4/00001.wav"


def splits(
    data_folder: str | Path,
    seed: int = 1234,
    split: str | None = None,
    valid_fraction: float = 0.1,
) -> dict[str, dict]:
    """The official division for identification, or one by speaker for verification.

    Arguments
    ---------
    data_folder : str or Path
        The folder that holds ``wav``, or ``dev`` and ``test``.
    seed : int
        Seed of the choice of valid speakers for verification.
    split : str, optional
        ``"identification"``: as ``iden_split.txt`` says; every speaker is in every
        split. ``"verification"``: the 40 speakers id10270 to id10309 of the official
        trials are test, some others valid. When not given, the first where
        ``iden_split.txt`` is there.
    valid_fraction : float
        Share of the development speakers that are valid, for verification.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``.

    Raises
    ------
    ValueError, FileNotFoundError
        The folder has another layout, no ``iden_split.txt`` though it is asked for, or
        an unknown ``split``.

    Example
    -------
    >>> splits("/nowhere")
    Traceback (most recent call last):
      ...
    FileNotFoundError: voxceleb1: the data folder /nowhere does not exist; ...
    """
    if split not in (None, *SPLIT_RULES):
        raise ValueError(
            f"voxceleb1: split is one of {', '.join(SPLIT_RULES)}, got {split!r}"
        )

    files: list[tuple[str, re.Match]] = []

    def has_utterances(folder):
        files[:] = [
            (path, match)
            for path, relative in audio_files(folder)
            if (match := _UTTERANCE.fullmatch(relative))
        ]
        return files

    root = resolve_root(data_folder, "voxceleb1", _LAYOUT, has_utterances)
    entries, key_of = {}, {}
    for path, match in files:
        key, speaker, video, number = match.groups()
        utt = f"{speaker}-{video}-{number}"
        key_of[utt] = key
        entries[utt] = {"wav": path, "spk_id": speaker}

    table = root / "iden_split.txt"
    if split is None:
        split = "identification" if table.is_file() else "verification"
        logger.info("voxceleb1: split for %s", split)
    if split == "identification":
        official = _identification(table)
        return group_by_split(entries, lambda utt, entry: official.get(key_of[utt]))

    development = {
        entry["spk_id"]
        for entry in entries.values()
        if not _in_official_trials(entry["spk_id"])
    }
    valid = hold_out(development, valid_fraction, seed)

    def split_of(utt, entry):
        if _in_official_trials(entry["spk_id"]):
            return "test"
        return "valid" if entry["spk_id"] in valid else "train"

    return group_by_split(entries, split_of)


def _in_official_trials(speaker):
    return "id10270" <= speaker <= "id10309"


def _identification(table):
    if not table.is_file():
        raise FileNotFoundError(
            f"voxceleb1: {table} is missing; get it from the site of the corpus, or "
            "choose split: verification"
        )
    fields = (line.split() for line in table.read_text(encoding="utf-8").splitlines())
    return {
        path.rsplit(".", 1)[0]: _IDENTIFICATION[part]
        for part, path in (pair for pair in fields if len(pair) == 2)
    }
