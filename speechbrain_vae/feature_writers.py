"""Where extracted features go: one class a format, all with the same two calls.

``write(utt, array)`` stores one utterance and gives what the manifest remembers of it;
``resume(entries)`` is told of what was stored before, and drops what was not.
"""

import os
from pathlib import Path

import numpy as np


class NpyWriter:
    """A file ``ID.npy`` for each utterance.

    Arguments
    ---------
    folder : str or Path

    Example
    -------
    >>> writer = NpyWriter(getfixture("tmp_path"))
    >>> writer.resume({})
    >>> writer.write("a", np.zeros((3, 2)))
    {'file': 'a.npy'}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def resume(self, entries):
        """Nothing to drop: a file is there wholly or not at all."""

    def write(self, utt, array):
        """Store features [T, D]."""
        name = f"{utt}.npy"
        temporary = self.folder / f"{name}.tmp"
        with open(temporary, "wb") as file:
            np.save(file, array)
        os.replace(temporary, self.folder / name)
        return {"file": name}


class Hdf5Writer:
    """A data set for each utterance in ``features.h5``, by h5py.

    Arguments
    ---------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.h5py = _optional("h5py", "hdf5")
        self.path = Path(folder) / "features.h5"
        self.file = None

    def resume(self, entries):
        """Drop data sets that the manifest does not know."""
        try:
            self.file = self.h5py.File(self.path, "a" if entries else "w")
        except OSError as error:
            raise ValueError(
                f"{self.path} was damaged when the last extraction was interrupted "
                f"({' '.join(str(error).split())}); remove {self.path.parent} to "
                "extract anew"
            ) from error
        for utt in self.file.keys() - entries.keys():
            del self.file[utt]

    def write(self, utt, array):
        """Store features [T, D]."""
        self.file.create_dataset(utt, data=array)
        self.file.flush()
        return {"file": self.path.name}


class _Appending:
    """Adds to the end of one file; what is behind the last known end is cut off."""

    name: str

    def __init__(self, folder):
        self.path = Path(folder) / self.name

    def resume(self, entries):
        """Cut off what an interrupted extraction has left half written."""
        end = max((entry["end"] for entry in entries.values()), default=0)
        with open(self.path, "ab") as file:
            file.truncate(end)

    def place(self):
        """What the manifest remembers."""
        return {"file": self.name, "end": self.path.stat().st_size}


class KaldiWriter(_Appending):
    """Matrices in ``feats.ark`` with their index ``feats.scp``, by kaldiio.

    Arguments
    ---------
    folder : str or Path
    """

    name = "feats.ark"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.kaldiio = _optional("kaldiio", "kaldi")
        self.index = self.path.with_suffix(".scp")

    def resume(self, entries):
        """Cut off half a matrix, and its line of the index."""
        super().resume(entries)
        lines = []
        if self.index.exists():
            lines = self.index.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.split(" ")[0] in entries]
        self.index.write_text("".join(kept), encoding="utf-8")

    def write(self, utt, array):
        """Store features [T, D]."""
        self.kaldiio.save_ark(
            str(self.path), {utt: array}, scp=str(self.index), append=True
        )
        return self.place()


class TokensWriter(_Appending):
    """A line ``ID 17 17 4 ...`` for each utterance in ``tokens.txt``.

    Where a frame has several codes, those of one frame are joined by commas.

    Arguments
    ---------
    folder : str or Path

    Example
    -------
    >>> writer = TokensWriter(getfixture("tmp_path"))
    >>> writer.resume({})
    >>> _ = writer.write("a", np.array([[3], [4]]))
    >>> _ = writer.write("b", np.array([[3, 1], [4, 0]]))
    >>> print(writer.path.read_text())
    a 3 4
    b 3,1 4,0
    <BLANKLINE>
    """

    name = "tokens.txt"

    def write(self, utt, array):
        """Store code indices [T, G]."""
        codes = (",".join(map(str, frame)) for frame in array)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(" ".join([utt, *codes]) + "\n")
        return self.place()


WRITERS: dict[str, type] = {
    "npy": NpyWriter,
    "hdf5": Hdf5Writer,
    "kaldi": KaldiWriter,
    "tokens": TokensWriter,
}


def _optional(package, kind):
    try:
        return __import__(package)
    except ImportError as error:
        raise ImportError(
            f"--format {kind} needs {package}; install it with: "
            "pip install speechbrain-vae[extract]"
        ) from error
