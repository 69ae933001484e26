"""Any folder of audio.

Layout: any tree of WAV, FLAC, Ogg, Opus and MP3 files, e.g. ``ann/01.wav``.
"""

import logging
from collections import defaultdict
from pathlib import Path

from .manifests import (
    AUDIO_FORMATS,
    SPLITS,
    assign_splits,
    audio_files,
    group_by_split,
    printable,
    resolve_root,
    safe_ids,
)

logger = logging.getLogger(__name__)

SPEAKERS = ("parent", "grandparent", "none")
_UNKNOWN, _TOP = "unknown", "."
_MIN_SPEAKERS = 3
_MIN_FILES = 10


def splits(
    data_folder: str | Path,
    seed: int = 1234,
    speaker: str = "parent",
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> dict[str, dict]:
    """Divide a folder of audio by speaker, or else by file.

    Arguments
    ---------
    data_folder : str or Path
        Any tree with audio files. Links are followed, each file is taken once,
        hidden files are not.
    seed : int
        Seed of the division.
    speaker : str
        ``"parent"``: the name of the folder a file lies in is its speaker; that of
        files in ``data_folder`` itself is ``"."``.
        ``"grandparent"``: that of the folder around it, as in SPEAKER/BOOK/FILE.
        ``"none"``: the speakers are not known; ``spk_id`` is ``"unknown"``.
    valid_fraction, test_fraction : float
        Shares of the speakers, or of the files.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``; see :func:`assign`.

    Raises
    ------
    ValueError, FileNotFoundError
        No such folder, no audio in it, an unknown ``speaker``, or a file that lies
        too high for it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("ann", "bob", "cid"):
    ...     (folder / name).mkdir()
    ...     (folder / name / "1.wav").touch()
    >>> [len(entries) for entries in splits(folder).values()]
    [1, 1, 1]
    """
    if speaker not in SPEAKERS:
        raise ValueError(
            f"folder: speaker is one of {', '.join(SPEAKERS)}, got {speaker!r}"
        )
    layout = f"audio files anywhere below it ({AUDIO_FORMATS}), such as ann/01.wav"
    root = resolve_root(data_folder, "folder", layout, audio_files)
    files = audio_files(root, name_unread=True)
    ids = safe_ids(relative for _, relative in files)
    entries = {}
    for path, relative in files:
        entries[ids[relative]] = {
            "wav": path,
            "spk_id": _speaker_of(relative, speaker),
        }
    if len(files) < len(SPLITS):
        # One long file is enough in the end, but only its decoding can tell.
        names = dict.fromkeys(entries, "train")
    else:
        names = _divide(entries, seed, valid_fraction, test_fraction)
    return group_by_split(entries, lambda utt, entry: names[utt])


def _speaker_of(relative, speaker):
    """The name of the speaker that the folders of a file say.

    That of the data folder itself says nothing: it would decide how all are divided.
    """
    if speaker == "none":
        return _UNKNOWN
    folders = [_TOP, *relative.split("/")[:-1]]
    if speaker == "parent":
        return folders[-1]
    if len(folders) < 3:
        raise ValueError(
            f"folder: speaker: grandparent needs SPEAKER/FOLDER/FILE below the data "
            f"folder, found {printable(relative)}; give a folder above, or another "
            "speaker"
        )
    return folders[-2]


def assign(
    entries: dict[str, dict],
    seed=1234,
    speaker="parent",
    valid_fraction=0.1,
    test_fraction=0.1,
) -> dict[str, str]:
    """Give each entry its split, by the largest unit there are enough of.

    By speaker from 3 speakers on; else by file from 10 files on; else by entry, where
    parts of one long file come into several splits. The log says which splits share
    speakers or files then. ``prepare`` calls it with the audio that turned out usable,
    so that broken files do not use up a split.

    Arguments
    ---------
    entries : dict of str to dict
        With ``wav``, ``spk_id``, and in parts of files ``source``, the whole file.
    seed, speaker, valid_fraction, test_fraction
        As for :func:`splits`.

    Returns
    -------
    dict of str to str
        The split of each entry.

    Raises
    ------
    ValueError
        Fewer entries than splits.

    Example
    -------
    >>> entries = {name: {"wav": name, "spk_id": name} for name in "abc"}
    >>> sorted(assign(entries).values())
    ['test', 'train', 'valid']
    """
    names = _divide(entries, seed, valid_fraction, test_fraction)
    speakers = {utt: entry["spk_id"] for utt, entry in entries.items()}
    known = {utt: name for utt, name in speakers.items() if name != _UNKNOWN}
    if shared := _sharing(names, known):
        logger.warning(
            "folder: %s share speakers, %d are needed to keep them apart; give more, "
            "each in a folder of their own, or where the folders are no speakers "
            '--corpus_options "{speaker: none}"',
            shared,
            _MIN_SPEAKERS,
        )
    if _sharing(names, _file_units(entries)):
        logger.warning(
            "folder: fewer than %d usable files; parts of the same file are in "
            "different splits",
            _MIN_FILES,
        )
    return names


def _divide(entries, seed, valid_fraction, test_fraction):
    """The split of each entry."""
    unit = {utt: entry["spk_id"] for utt, entry in entries.items()}
    if len(set(unit.values())) < _MIN_SPEAKERS:
        unit = _file_units(entries)
        if len(set(unit.values())) < _MIN_FILES:
            unit = {utt: utt for utt in entries}
    needed = 1 + bool(valid_fraction) + bool(test_fraction)
    if len(entries) < needed:
        raise ValueError(
            f"folder: {len(entries)} usable piece(s) of audio cannot fill {needed} "
            "splits; give more audio, or a smaller max_seconds to cut it finer"
        )
    names = assign_splits(unit.values(), valid_fraction, test_fraction, seed)
    return {utt: names[unit[utt]] for utt in entries}


def _sharing(names, units):
    """The splits that have a unit in common with another one, in words."""
    splits_of = defaultdict(set)
    for utt, unit in units.items():
        splits_of[unit].add(names[utt])
    shared = set().union(*(found for found in splits_of.values() if len(found) > 1))
    return " and ".join(name for name in SPLITS if name in shared)


def _file_units(entries):
    """The first entry of the file of each entry; identifiers name no machine."""
    first = {}
    for utt in sorted(entries):
        first.setdefault(entries[utt].get("source", entries[utt]["wav"]), utt)
    return {
        utt: first[entry.get("source", entry["wav"])] for utt, entry in entries.items()
    }
