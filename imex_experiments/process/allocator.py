"""Keep freed memory in the process instead of returning it to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
GIGABYTE = 2**30


def keep_freed_memory() -> bool:
    """Let malloc keep up to a gigabyte of freed memory; return False if it cannot.

    A training step allocates and frees tensors of some megabytes. By default malloc returns
    each of them to the system, and the next one costs a page fault for every 4 kB. That is
    up to two thirds of the time of an elementwise product (docs/performance.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, GIGABYTE) and mallopt(M_TRIM_THRESHOLD, GIGABYTE)
    )
