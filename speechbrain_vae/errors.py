"""How a program ends when something is in the way: in one line that says what to do.

PyTorch is not imported here, so that help and wrong commands answer at once.
"""

import contextlib
import errno
import re
import signal
import sys

from ruamel.yaml.error import YAMLError

from speechbrain_vae.dataio.manifests import printable

_ADVICE = {
    errno.EACCES: "change its permissions, or give another folder",
    errno.EROFS: "give another folder, one that can be written",
    errno.ENOSPC: "make room, and give the same command again to go on",
    errno.EFBIG: "give a folder where files may be larger (see ulimit -f)",
    errno.EDQUOT: "make room, and give the same command again to go on",
    errno.ENOENT: "check the path",
    errno.EEXIST: "it is a file; give a folder",
    errno.ENOTDIR: "a part of the path is a file; give a folder",
    errno.EISDIR: "it is a folder; give a file, or move it away",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "it is a link, where a file should be; remove it",
}


@contextlib.contextmanager
def one_line_errors(
    kinds=(ValueError, KeyError, OSError, ImportError, YAMLError),
):
    """End the program with one line when what the user gave cannot be used.

    So do an interruption from the keyboard, and a lack of memory.

    Arguments
    ---------
    kinds : tuple of type
        Exceptions that the user can do something about.

    Example
    -------
    >>> with one_line_errors():
    ...     raise FileNotFoundError("no such folder: speech")
    Traceback (most recent call last):
      ...
    SystemExit: error: no such folder: speech
    """
    try:
        yield
    except KeyboardInterrupt as error:
        print(
            "interrupted; give the same command again to go on",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGINT) from error
    except kinds as error:
        raise SystemExit(f"error: {_line(error)}") from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise SystemExit(
            f"error: out of memory ({_line(error)}); end other programs, or give "
            "shorter batches or files"
        ) from error


def _line(error):
    """What an exception says, in one line that any terminal can take."""
    message = str(error)
    if isinstance(error, KeyError):
        key = error.args[0]
        message = key if " " in str(key) else f"the YAML has no key {key}"
    elif isinstance(error, OSError) and error.errno in _ADVICE:
        advice = _ADVICE[error.errno]
        message = f"{error.strerror}: {error.filename or 'while writing'}; {advice}"
    return printable(" ".join(str(message).split())[:2000])


def _is_out_of_memory(error):
    # PyTorch has no exception of its own for the memory of the CPU.
    return isinstance(error, MemoryError) or re.search(
        "out of memory|can't allocate memory", str(error)
    )
