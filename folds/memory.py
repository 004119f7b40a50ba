"""Memory that a training on a CPU keeps from one step for the next."""

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK = 32 * 2**20  # bytes; glibc refuses more
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, where its C library can be told to.

    A step frees large tensors, and by default glibc hands many of them back to the system, which has to clear pages
    anew for the next step. The peak does not change.

    Returns:
        Whether it will; other C libraries have ways of their own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, NEVER))
