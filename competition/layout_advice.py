"""What a data folder holds if it is not in Kaggle's layout, and what to do about it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from competition.hint import hint
from competition.listing import IMAGE_TYPES, few, first_images, is_hidden
from competition.names import suffix

MASKS = ("mask", "label", "annot", "seg", "gt", "truth", "matte", "alpha")  # parts of the names of folders of masks


def advice_without(root: Path, wanted: Sequence[str]) -> str:
    """What is in a folder instead of one of the folders ``wanted``, and what to do.

    Args:
        root: the data folder.
        wanted: names of folders that do not exist, such as train and train_hq.
    """
    names = sorted(path.name for path in root.iterdir() if not is_hidden(path.name))
    folders = [name for name in names if (root / name).is_dir()]
    found = packed(root, wanted) or _misnamed(wanted, names) or _elsewhere(root, wanted, folders)
    if not found and wanted[0] == "train":
        found = _other_layout(root, names, folders)
    return found or "DATA must be in Kaggle's layout (docs/your-photos.md)"


def packed(root: Path, wanted: Sequence[str]) -> str | None:
    """How to unpack the first zip file of something ``wanted`` that is not there in unpacked form."""
    zips = [f"{name}.zip" for name in wanted if (root / f"{name}.zip").is_file() and not (root / name).exists()]
    unpacks = hint("data", FROM=root, DATA=f"{root}-unpacked")
    return f"{zips[0]} is there: `{unpacks}` unpacks Kaggle's zip files; unpack others yourself" if zips else None


def _misnamed(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    if files := [name for name in names if name in wanted]:
        return f"{files[0]} is a file or a broken link, not a folder"
    other = [name for name in names if name.lower() in wanted]
    return f"it has {other[0]}; rename it to {other[0].lower()}" if other else None


def _elsewhere(root: Path, wanted: Sequence[str], folders: Sequence[str]) -> str | None:
    if root.name in wanted:
        return f"name the folder that holds {root.name}: DATA={shlex.quote(str(root.parent))}"
    deeper = [name for name in folders if any((root / name / kind).is_dir() for kind in wanted)]
    return f"the data are one folder deeper: DATA={shlex.quote(str(root / deeper[0]))}" if deeper else None


def _other_layout(root: Path, names: Sequence[str], folders: Sequence[str]) -> str | None:
    """Images in other folders, or in none, and the command that makes a data folder of them."""
    images = [name for name in names if suffix(name) in IMAGE_TYPES]
    with_images = [name for name in folders if name not in ("test", "test_hq") and first_images(root / name)]
    if not images and not with_images:
        return None
    masks = [name for name in with_images if any(part in name.lower() for part in MASKS)]
    photos = [name for name in with_images if name not in masks]
    from_images = root if images or not photos else root / photos[0]
    from_masks = root / masks[0] if masks else "..."
    return (
        f"it has images in {few(with_images) if with_images else 'itself'}; make a data folder of them: "
        f"{hint('adopt', IMAGES=from_images, MASKS=from_masks, DATA='data/mine')}"
    )
