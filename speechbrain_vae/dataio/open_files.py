"""Parts of many files, few of which are open at a time."""

import os

LIMIT = 16
"""Files that stay open, of each :class:`OpenFiles`; a process may have 1,024."""


class OpenFiles:
    """Reads from files, and closes that which was opened first where they are many.

    Worker processes open their own.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a"
    >>> _ = path.write_bytes(b"0123456789")
    >>> OpenFiles().read(path, 3, offset=4)
    b'456'
    """

    def __init__(self):
        self._files = {}

    def read(self, path, length, offset):
        """Bytes of a file, fewer than ``length`` where it ends before.

        Arguments
        ---------
        path : str or Path
        length, offset : int
            In bytes.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        if path not in self._files:
            if len(self._files) >= LIMIT:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[path] = os.open(path, os.O_RDONLY)
        return os.pread(self._files[path], length, offset)

    def __getstate__(self):
        return {"_files": {}}
