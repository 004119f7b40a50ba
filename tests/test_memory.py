"""Freed memory is there for the next step."""

import subprocess
import sys

import pytest

from folds.memory import keep_freed_memory

# Each step takes eight blocks of 16 MiB, writes them and frees them: the pages that the system provides for the last.
PROGRAM = """
import ctypes
import resource
import sys
from folds.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

keep_freed_memory()
for step in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(2**24) for _ in range(8)]
    for block in blocks:
        libc.memset(block, 1, 2**24)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1000  # all of their pages would be 32,768 of 4 KiB
