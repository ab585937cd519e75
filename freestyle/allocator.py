"""Keep freed memory for the next batch, where the C library would hand it back each time."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc not to map each large tensor anew; other C libraries are left alone.

    A pass over pictures frees and takes the same few hundred megabytes with every batch; mapping
    them anew, and the page faults that follow, were two fifths of the time of a pass on two cores.
    The process then holds its largest need until it ends.

    Returns:
        Whether the C library took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
