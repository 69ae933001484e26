"""Nothing is written among the files of somebody else."""

import os
import re
from pathlib import Path

from speechbrain_vae.dataio.manifests import describe_folder, printable
from speechbrain_vae.run_lock import LOCK


def refuse_others(folder: str | Path, what: str, ours: str):
    """Refuse a folder to write to that holds something else.

    Hidden files do not count.

    Arguments
    ---------
    folder : str or Path
        Where a command is to write; it may be missing.
    what : str
        What the command writes, for the message.
    ours : str
        Regular expression of the names that it may have left there.

    Raises
    ------
    ValueError
        There is a file of another name.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> refuse_others(folder, "extraction", r".*\\.npy")
    >>> (folder / "ann.wav").touch()
    >>> refuse_others(folder, "extraction", r".*\\.npy")
    Traceback (most recent call last):
      ...
    ValueError: ... is no extraction, it holds ann.wav; give a new or empty --out
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    known = re.compile(rf"{ours}|{re.escape(LOCK)}|\..*", re.DOTALL)
    if not all(known.fullmatch(name) for name in names):
        raise ValueError(
            f"{printable(folder)} is no {what}, it holds {describe_folder(folder)}; "
            "give a new or empty --out"
        )
