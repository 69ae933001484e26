"""How the C library keeps memory between the steps of a training on a CPU."""

import ctypes
import sys

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM, _LARGEST_BLOCK = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Let the C library keep what this process frees, from now on.

    A step frees its gradients and activations, and the next asks for as much again.
    glibc gives large blocks back to the system at once, and each page of them costs a
    fault when it comes anew: an eighth of the step of ``ae.yaml``. What is kept is the
    process's largest need at any time, not more.

    Returns
    -------
    bool
        False where the C library is not glibc; nothing is changed then.

    Example
    -------
    >>> keep_freed_memory() in (True, False)
    True
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = (_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    return all([library.mallopt(*setting) == 1 for setting in settings])
