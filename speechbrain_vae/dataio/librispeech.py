"""LibriSpeech: read English audiobooks, 16 kHz.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books",
ICASSP 2015; https://www.openslr.org/12, CC BY 4.0.

Layout: ``LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac`` and beside it
``103-1240.trans.txt``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from .manifests import audio_files, read_kaldi_table, resolve_root


def splits(
    data_folder: str | Path,
    seed: int = 1234,
    train=("train-clean-100",),
    valid=("dev-clean",),
    test=("test-clean",),
) -> dict[str, dict]:
    """The official subsets, whichever of them are wanted.

    Arguments
    ---------
    data_folder : str or Path
        ``LibriSpeech``, or the folder that holds it.
    seed : int
        Not used: nothing is drawn.
    train, valid, test : list of str, or str
        Subsets of each split, such as ``train-clean-360``.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``, with ``words``.

    Raises
    ------
    ValueError, FileNotFoundError
        A subset is not there, or one is in two splits.

    Example
    -------
    >>> splits("/nowhere")
    Traceback (most recent call last):
      ...
    FileNotFoundError: librispeech: the data folder /nowhere does not exist; ...
    """
    subsets = {
        name: (value,) if isinstance(value, str) else tuple(value)
        for name, value in (("train", train), ("valid", valid), ("test", test))
    }
    wanted = [subset for group in subsets.values() for subset in group]
    twice = sorted({subset for subset in wanted if wanted.count(subset) > 1})
    if twice:
        raise ValueError(f"librispeech: {', '.join(twice)} named more than once")
    root = find_root(data_folder, "librispeech", wanted)
    return {
        name: {
            utt: entry
            for subset in sorted(group)
            for utt, entry in read_subset(root / subset).items()
        }
        for name, group in subsets.items()
    }


def find_root(data_folder: str | Path, corpus: str, subsets: Sequence[str]):
    """The folder that holds these subsets, or an error that names the ones missing.

    Arguments
    ---------
    data_folder : str or Path
        ``LibriSpeech``, or the folder that holds it.
    corpus : str
        Name for the message.
    subsets : sequence of str
        Subsets that must be there.

    Returns
    -------
    Path
        The folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "LibriSpeech" / "dev-clean").mkdir(parents=True)
    >>> find_root(folder, "librispeech", ["dev-clean"]).name
    'LibriSpeech'
    """
    example = "103/1240/103-1240-0000.flac and 103/1240/103-1240.trans.txt"
    return resolve_root(
        data_folder,
        corpus,
        f"the folders {', '.join(subsets)}, each with speakers such as {example}",
        lambda folder: all((folder / subset).is_dir() for subset in subsets),
        names=("LibriSpeech",),
    )


def read_subset(folder) -> dict[str, dict]:
    """Entries of one subset: its utterances that have a transcript.

    Arguments
    ---------
    folder : Path
        A folder with the layout ``speaker/chapter/speaker-chapter-number.flac``.

    Returns
    -------
    dict of str to dict
        Entries with ``wav``, ``spk_id`` and ``words``.

    Raises
    ------
    ValueError
        No utterance with a transcript.

    Example
    -------
    >>> chapter = getfixture("tmp_path") / "dev-clean" / "84" / "121"
    >>> chapter.mkdir(parents=True)
    >>> (chapter / "84-121-0000.flac").touch()
    >>> _ = (chapter / "84-121.trans.txt").write_text("84-121-0000 GO ON")
    >>> read_subset(chapter.parents[1])["84-121-0000"]["words"]
    'GO ON'
    """
    transcripts, entries = {}, {}
    for path, _ in audio_files(folder, (".flac", ".wav")):
        utt = os.path.splitext(os.path.basename(path))[0]
        chapter = utt.rpartition("-")[0]
        table = os.path.join(os.path.dirname(path), f"{chapter}.trans.txt")
        if table not in transcripts:
            exists = os.path.isfile(table)
            transcripts[table] = read_kaldi_table(table) if exists else {}
        if transcripts[table].get(utt):
            entries[utt] = {
                "wav": path,
                "spk_id": utt.split("-")[0],
                "words": transcripts[table][utt],
            }
    if not entries:
        raise ValueError(
            f"librispeech: no utterance with a transcript in {folder}; expected "
            "103/1240/103-1240-0000.flac and 103/1240/103-1240.trans.txt"
        )
    return dict(sorted(entries.items()))
