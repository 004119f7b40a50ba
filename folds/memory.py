"""The memory (RAM) that is available to this process, and what ``train.cache`` takes of it."""

from pathlib import Path

from competition.command import Failure
from competition.plural import counted
from competition.settings.schema import Settings
from folds import ranks

# Of control groups: the files of limit and usage, and the entry of memory.stat for pages that can be dropped.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def require_cache_fits(settings: Settings, photos: int, available: int | None) -> None:
    """Raise a Failure if ``train.cache`` needs more memory than is available, which would end the process later.

    Args:
        settings: of the run.
        photos: the number of photos that a fold learns from.
        available: bytes, None if unknown.
    """
    frame = settings.input
    needed = ranks.world_here() * photos * frame.height * frame.width * 4  # photo and target
    if settings.train.cache and available is not None and needed > available:
        raise Failure(
            f"train.cache=true keeps {counted(photos, 'photo')} of {frame.width} x {frame.height} in memory, "
            f"{needed / 2**30:.1f} GB"
            + (f" in {ranks.world_here()} processes" if ranks.world_here() > 1 else "")
            + f", and {available / 2**30:.1f} GB is available; use SET=train.cache=false"
        )


def available_memory(root: Path = Path("/")) -> int | None:
    """The bytes that new data can take: of the machine with its swap, and of the control groups of this process.

    None if this system does not tell.

    Args:
        root: where /proc and /sys are.
    """
    limits = [left for left in (_machine(root), *_groups(root)) if left is not None]
    return max(0, min(limits)) if limits else None


def _machine(root: Path) -> int | None:
    values = _table(root / "proc/meminfo")
    if "MemAvailable:" not in values:
        return None
    return 1024 * (values["MemAvailable:"] + values.get("SwapFree:", 0))


def _groups(root: Path) -> list[int | None]:
    """What each control group with a limit of memory leaves; pages of files can be dropped and count as free."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int | None] = []
    for line in lines:  # 0::/path in version 2, 9:memory:/path in version 1
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if kinds else "sys/fs/cgroup")
        here = mount / path.strip("/")
        # In a container the path may be that of the host, and the container's own group is the mount itself.
        groups = {mount, *(group for group in (here, *here.parents) if group.is_relative_to(mount))}
        found += [_left(group, *(VERSION_1 if kinds else VERSION_2)) for group in groups]
    return found


def _left(group: Path, limit: str, usage: str, inactive: str) -> int | None:
    most, used = _number(group / limit), _number(group / usage)
    if most is None or used is None:
        return None
    return most - used + _table(group / "memory.stat").get(inactive, 0)


def _table(path: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
