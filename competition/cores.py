"""The processor cores that this process may use."""

import os


def usable_cores() -> int:
    """The number of cores, without those that are taken from this process, as in a container; macOS does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
