"""Where extracted features go: one class a format, all with the same three calls.

``write(utt, array)`` stores one utterance, wholly or not at all, and gives what the
manifest remembers of it; ``stored(entries)`` are the IDs of these entries of a manifest
whose features are there indeed; ``resume(entries, dropped)`` is told of what stays by
ID, and of the IDs whose features are out of date, and drops all but the first.
"""

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from speechbrain_vae.dataio.manifests import replacing


@contextlib.contextmanager
def _appending(*paths):
    """Leave files as they were where something cannot be added to them."""
    ends = {path: path.stat().st_size for path in paths}
    try:
        yield
    except BaseException:
        for path, end in ends.items():
            os.truncate(path, end)
        raise


class NpyWriter:
    """A file ``ID.npy`` for each utterance.

    Arguments
    ---------
    folder : str or Path

    Example
    -------
    >>> writer = NpyWriter(getfixture("tmp_path"))
    >>> writer.write("a", np.zeros((3, 2)))
    {'file': 'a.npy', 'bytes': 176}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def stored(self, entries):
        """IDs whose files have their size."""
        return {
            utt
            for utt, entry in entries.items()
            if _size(self.folder / f"{utt}.npy") == entry.get("bytes")
        }

    def resume(self, entries, dropped):
        """Remove the files that are out of date."""
        for utt in dropped - entries.keys():
            (self.folder / f"{utt}.npy").unlink(missing_ok=True)

    def write(self, utt, array):
        """Store features [T, D]."""
        name = f"{utt}.npy"
        # NumPy itself does not say why a file cannot be written.
        memory = io.BytesIO()
        np.save(memory, array)
        with replacing(self.folder / name, "wb") as file:
            file.write(memory.getbuffer())
        return {"file": name, "bytes": len(memory.getbuffer())}


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

    def stored(self, entries):
        """IDs whose data sets have all their frames."""
        if not entries or not self.path.exists():
            return set()
        with self._open("r") as file:
            return {
                utt
                for utt, entry in entries.items()
                if utt in file and len(file[utt]) == entry["frames"]
            }

    def _open(self, mode):
        try:
            return self.h5py.File(self.path, mode)
        except OSError as error:
            raise ValueError(
                f"{self.path} was damaged when the last extraction was interrupted "
                f"({' '.join(str(error).split())}); remove {self.path.parent} to "
                "extract anew"
            ) from error

    def resume(self, entries, dropped):
        """Drop data sets that the manifest does not know."""
        if not entries:
            empty = io.BytesIO()
            self.h5py.File(empty, "w").close()
            with replacing(self.path, "wb") as file:
                file.write(empty.getbuffer())
        self.file = self._open("r+")
        with self._room(0):
            for utt in self.file.keys() - entries.keys():
                del self.file[utt]

    def write(self, utt, array):
        """Store features [T, D]."""
        with self._room(array.nbytes):
            self.file.create_dataset(utt, data=array)
        return {"file": self.path.name}

    @contextlib.contextmanager
    def _room(self, size):
        """Take room on the disk first: HDF5 does not survive a write that fails."""
        # The index is copied when it grows.
        size += 2**16 + 256 * len(self.file)
        with open(self.path, "r+b") as file:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), self.file.id.get_filesize(), size)
                yield
                self.file.flush()
            finally:
                os.ftruncate(file.fileno(), self.file.id.get_filesize())


class KaldiWriter:
    """Matrices in ``feats.ark`` with their index ``feats.scp``, by kaldiio.

    A matrix that is out of date leaves the index, and stays in the archive.

    Arguments
    ---------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.kaldiio = _optional("kaldiio", "kaldi")
        self.path = Path(folder) / "feats.ark"
        self.index = self.path.with_suffix(".scp")

    def stored(self, entries):
        """IDs of the index whose matrices are in the archive."""
        size, known = _size(self.path) or 0, {utt for utt, _ in _lines(self.index)}
        return {
            utt
            for utt, entry in entries.items()
            if utt in known and entry.get("end", size + 1) <= size
        }

    def resume(self, entries, dropped):
        """Cut off what was half written, and drop lines of the index."""
        if entries:
            os.truncate(self.path, max(entry["end"] for entry in entries.values()))
        else:
            with replacing(self.path, "wb"):
                pass
        _keep_lines(self.index, entries)

    def write(self, utt, array):
        """Store features [T, D]."""
        with _appending(self.path, self.index):
            self.kaldiio.save_ark(
                str(self.path), {utt: array}, scp=str(self.index), append=True
            )
        return {"file": self.path.name, "end": self.path.stat().st_size}


class TokensWriter:
    """A line ``ID 17 17 4 ...`` for each utterance in ``tokens.txt``.

    Where a frame has several codes, those of one frame are joined by commas.

    Arguments
    ---------
    folder : str or Path

    Example
    -------
    >>> writer = TokensWriter(getfixture("tmp_path"))
    >>> writer.resume({}, set())
    >>> _ = writer.write("a", np.array([[3], [4]]))
    >>> _ = writer.write("b", np.array([[3, 1], [4, 0]]))
    >>> print(writer.path.read_text())
    a 3 4
    b 3,1 4,0
    <BLANKLINE>
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "tokens.txt"

    def stored(self, entries):
        """IDs whose lines have a code for each frame."""
        return {
            utt
            for utt, line in _lines(self.path)
            if utt in entries and len(line.split()) == 1 + entries[utt]["frames"]
        }

    def resume(self, entries, dropped):
        """Drop lines that the manifest does not know, half a line among them."""
        _keep_lines(self.path, entries)

    def write(self, utt, array):
        """Store code indices [T, G]."""
        codes = (",".join(map(str, frame)) for frame in array)
        with _appending(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(" ".join([utt, *codes]) + "\n")
        return {"file": self.path.name}


def _size(path):
    return path.stat().st_size if path.is_file() else None


def _lines(path):
    """Whole lines of a table, none where it is missing, each after its first word."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith("\n") and line.strip():
                yield line.split()[0], line


def _keep_lines(path, ids):
    """Drop the lines of a table whose first words are none of these IDs."""
    with replacing(path) as new:
        for utt, line in _lines(path):
            if utt in ids:
                new.write(line)


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
