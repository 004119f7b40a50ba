"""The creation of a run's folder, and what the run depends on besides its settings: data, packages, git revision."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import write_text
from competition.run.folder import RunFolder
from competition.run.records import Environment
from competition.settings.resolve import to_yaml
from competition.settings.schema import Settings

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "opencv-python-headless")


def record_run(run: RunFolder, settings: Settings, data: DataFolder, device: str) -> None:
    """Write settings.yaml and environment.json of a new run; those of an existing run stay.

    The settings are written last, because a run exists as soon as its settings do.
    """
    if run.settings.is_file():
        return
    Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=str(data.root.resolve()),
        fingerprint=data.fingerprint,
        device=device,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        git=git_revision(),
    ).write(run.environment)
    write_text(run.settings, to_yaml(settings))


def require_same_data(run: RunFolder, data: DataFolder) -> None:
    """Raise a Failure unless the training photos are those that the run was made from."""
    made_from = Environment.read(run.environment)
    if made_from.fingerprint != data.fingerprint:
        raise Failure(
            f"the training photos in {data.root} are not those that run {run.name} was made from "
            f"({made_from.data}): names or file sizes differ; name that folder with DATA=..., or use another RUN"
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
