"""The image files of a folder."""

from collections.abc import Sequence
from pathlib import Path


def image_files(folder: Path, types: Sequence[str]) -> list[Path]:
    """The files with one of the types, sorted; hidden ones are ignored, such as the ``._name.jpg`` of macOS."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in types and not path.name.startswith("."))
