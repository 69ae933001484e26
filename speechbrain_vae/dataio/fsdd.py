"""Free Spoken Digit Dataset: single English digits, 8 kHz.

Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.

Layout: ``recordings/{digit}_{speaker}_{take}.wav``.
"""

import os
import re
from pathlib import Path

from .manifests import assign_splits, audio_files, group_by_split, resolve_root

DIGITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)

SPLIT_RULES = ("speakers", "takes")

_NAME = re.compile(r"(\d)_(.+)_(\d+)\.\w+")
_LAYOUT = "recordings/7_jackson_32.wav"


def splits(
    data_folder: str | Path, seed: int = 1234, split: str = "speakers"
) -> dict[str, dict]:
    """Divide the digits by speaker or by take.

    Arguments
    ---------
    data_folder : str or Path
        Root of the dataset.
    seed : int
        Seed of the division by speaker.
    split : str
        ``"speakers"``: a sixth of the speakers is valid and a sixth test, so 4, 1
        and 1 of them. ``"takes"``: the convention of its authors, takes 0 to 4 of
        every speaker are test; takes 5 to 9 are valid here.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test`` with ``words``, the digit's name.

    Raises
    ------
    ValueError, FileNotFoundError
        The folder has another layout, or an unknown ``split``.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "recordings"
    >>> folder.mkdir()
    >>> for take in (0, 5, 10):
    ...     (folder / f"7_ann_{take}.wav").touch()
    >>> splits(folder.parent, split="takes")["test"]["7_ann_0"]["words"]
    'seven'
    """
    if split not in SPLIT_RULES:
        raise ValueError(
            f"fsdd: split is one of {', '.join(SPLIT_RULES)}, got {split!r}"
        )

    def recordings(folder):
        return [
            (path, match)
            for path, relative in audio_files(folder / "recordings")
            if (match := _NAME.fullmatch(relative))
        ]

    root = resolve_root(
        data_folder,
        "fsdd",
        _LAYOUT,
        recordings,
        names=("free-spoken-digit-dataset", "fsdd"),
    )
    entries, takes = {}, {}
    for path, match in recordings(root):
        digit, speaker, take = match.groups()
        utt = os.path.splitext(match.string)[0]
        takes[utt] = int(take)
        entries[utt] = {"wav": path, "spk_id": speaker, "words": DIGITS[int(digit)]}

    if split == "takes":

        def split_of(utt, entry):
            return "test" if takes[utt] < 5 else "valid" if takes[utt] < 10 else "train"

    else:
        speakers = {entry["spk_id"] for entry in entries.values()}
        names = assign_splits(speakers, 1 / 6, 1 / 6, seed)

        def split_of(utt, entry):
            return names[entry["spk_id"]]

    return group_by_split(entries, split_of)
