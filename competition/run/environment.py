"""What a run depends on besides its settings: data, device, packages, git revision."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from competition.data_folder import DataFolder
from competition.mask_area import masks_key
from competition.run.records import Environment

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "opencv-python-headless")


def describe_environment(data: DataFolder, device: str) -> Environment:
    """The environment of a run that is made now, on a device of this name, from data whose masks were checked."""
    return Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=str(data.root.resolve()),
        fingerprint=data.fingerprint,
        masks=masks_key(data),
        device=device,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        git=git_revision(),
    )


def git_revision() -> str | None:
    """Return the commit of this code, with ``+`` if files are changed; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
