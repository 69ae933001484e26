"""One run at a time in an output folder."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks; two runs are not told apart there.
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"

_until_exit = contextlib.ExitStack()
_held: set[Path] = set()


class RunLockError(OSError):
    """Another run has the folder; the message says which."""


@contextlib.contextmanager
def run_lock(folder: str | Path):
    """Have a folder to oneself.

    The lock ends with the process, however it ends: what a killed run leaves behind
    stops nobody. A process may ask for the same folder again.

    Arguments
    ---------
    folder : str or Path
        Made where it is missing.

    Raises
    ------
    RunLockError
        Another process has it, here or on another machine that shares the disk.
    OSError
        The folder cannot be made or written, or its lock is a link.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "run"
    >>> with run_lock(folder):
    ...     sorted(path.name for path in folder.iterdir())
    ['run.lock']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK
    if path in _held:
        # Opened again and closed, the file would take the lock with it.
        yield
        return
    with open(path, "a+", encoding="utf-8", opener=_no_link) as file:
        try:
            if fcntl is not None:
                # Of the process, not of the file: workers that outlive a killed run
                # for a moment do not inherit it.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RunLockError(
                f"{folder} is in use by another run ({_owner(file)}); wait for it, "
                "stop it, or give another output folder"
            ) from None
        file.truncate(0)
        json.dump(
            {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            },
            file,
        )
        file.flush()
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def hold_run_lock(folder):
    """Have a folder to oneself until the process ends; see :func:`run_lock`.

    For scripts, which have one folder from start to end.

    Example
    -------
    >>> hold_run_lock(getfixture("tmp_path") / "run")
    """
    _until_exit.enter_context(run_lock(folder))


def _no_link(path, flags):
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _owner(file):
    file.seek(0)
    try:
        owner = json.load(file)
        return "process {process} on {host}, since {since}".format_map(owner)
    except (ValueError, KeyError, TypeError):
        return "which has just begun"
