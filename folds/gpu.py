"""Whether PyTorch can use the GPU of this machine, and if not, why.

PyTorch ignores a GPU whose driver is too old, and reports a GPU as available for which it has no kernels. Both are
errors here: a training meant for a GPU would otherwise run on the CPU for days, or fail at its first step.
"""

import os
import re
from pathlib import Path

import torch

DRIVER = Path("/proc/driver/nvidia")  # written by NVIDIA's kernel module
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}  # by CUDA's major version (CUDA Toolkit release notes, table 2)


def obstacle(index: int = 0) -> str | None:
    """Why PyTorch cannot use this machine's GPU, with what to do; None if it can, or if there is none.

    Args:
        index: number of the GPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or torch.version.hip:
        return None
    if torch.cuda.is_available():
        return _missing_kernels(index)
    driver = driver_version()
    if driver is None:
        return None
    if torch.version.cuda is None:
        return (
            f"this machine has an NVIDIA GPU, but PyTorch {torch.__version__} is built without CUDA; install a build "
            "with CUDA from pytorch.org"
        )
    needed = OLDEST_DRIVER.get(int(torch.version.cuda.partition(".")[0]), 0)
    if int(driver.partition(".")[0]) < needed:
        return (
            f"the NVIDIA driver {driver} is too old for PyTorch {torch.__version__}, which needs {needed} or newer "
            f"for CUDA {torch.version.cuda}; update the driver, or install a PyTorch build for an older CUDA"
        )
    return (
        f"PyTorch {torch.__version__} cannot use the NVIDIA GPU of this machine (driver {driver}); "
        "`python -c 'import torch; torch.cuda.init()'` says why"
    )


def _missing_kernels(index: int) -> str | None:
    """Why an available GPU cannot compute: PyTorch has no kernels for cards as old as this one."""
    architectures = [int(name[3:]) for name in torch.cuda.get_arch_list() if re.fullmatch(r"sm_\d+", name)]
    major, minor = torch.cuda.get_device_capability(index)
    if not architectures or 10 * major + minor >= min(architectures):
        return None
    oldest = min(architectures)
    return (
        f"PyTorch {torch.__version__} has no kernels for the {torch.cuda.get_device_name(index)} (compute capability "
        f"{major}.{minor}), only for {oldest // 10}.{oldest % 10} and newer; use another card, or a PyTorch build "
        "for CUDA 12.6, which has them"
    )


def driver_version() -> str | None:
    """The version of NVIDIA's driver, such as 535.104.05; None without driver or card."""
    try:
        cards = any((DRIVER / "gpus").iterdir())
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", (DRIVER / "version").read_text())
    except OSError:
        return None
    return found[1] if cards and found else None
