"""Sessions of onnxruntime on a CPU. This module needs no torch.

onnxruntime computes in fp32 here. Its convolutions keep blocks of channels together in memory, which is faster than
torch on processors without bf16 (docs/performance.md).
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

from competition.command import Failure
from competition.cores import usable_cores

PROVIDER = "CPUExecutionProvider"
SEVERE = 3  # onnxruntime's log level of errors: its warnings are for developers
# Read when onnxruntime is imported, which would otherwise write an id of the machine and telemetry to ~/.cache.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def is_installed() -> bool:
    """Whether onnxruntime can be imported."""
    return find_spec("onnxruntime") is not None


def open_session(content: bytes | str, threads: int) -> Any:
    """A session of an ONNX model.

    Args:
        content: the model, or the path of its file.
        threads: of one call; the last bits of its results may depend on them.
    """
    if not is_installed():
        raise Failure("onnxruntime is not installed; install it: pip install onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SEVERE
    # Waiting threads sleep, as OMP_WAIT_POLICY=PASSIVE does for torch: spinning slows processes that share cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(content, options, providers=[PROVIDER])


@cache
def _share_memory() -> None:
    """Make one arena of memory for all sessions; else each network of an ensemble would keep its own."""
    import onnxruntime

    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    memory = onnxruntime.OrtMemoryInfo("Cpu", kinds[0], 0, kinds[1])
    onnxruntime.create_and_register_allocator(memory, None)


def default_threads() -> int:
    """The number of threads that OMP_NUM_THREADS sets, as for torch; by default the cores of this process."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(wanted) if wanted.isdecimal() and int(wanted) else usable_cores()
