"""Available memory, and the cache of the training images."""

from pathlib import Path

import pytest

from competition.command import Failure
from competition.settings.resolve import resolve
from folds.memory import available_memory, require_cache_fits

MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\nSwapFree: 1000 kB\n"}
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/memory/"
LIMITED_2 = {"memory.max": "5000\n", "memory.current": "3000\n", "memory.stat": "anon 1\ninactive_file 500\n"}
LIMITED_1 = {
    "memory.limit_in_bytes": "5000\n",
    "memory.usage_in_bytes": "3000\n",
    "memory.stat": "inactive_file 1\ntotal_inactive_file 700\n",
}


def under(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {folder + name: text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        (MACHINE, 9000 * 1024),
        (MACHINE | {"proc/self/cgroup": "0::/\n"} | under(V2, LIMITED_2), 2500),
        (MACHINE | {"proc/self/cgroup": "0::/a/b\n"} | under(V2 + "a/", LIMITED_2), 2500),
        (MACHINE | {"proc/self/cgroup": "0::/docker/host\n"} | under(V2, LIMITED_2), 2500),
        (MACHINE | {"proc/self/cgroup": "0::/\n"} | under(V2, LIMITED_2 | {"memory.max": "max\n"}), 9000 * 1024),
        (MACHINE | {"proc/self/cgroup": "4:cpu:/\n9:memory:/a\n"} | under(V1 + "a/", LIMITED_1), 2700),
        (MACHINE | {"proc/self/cgroup": "4:cpu:/a\n"} | under(V1 + "a/", LIMITED_1), 9000 * 1024),
    ],
    ids=["unknown", "machine", "group", "parent", "container", "no limit", "version 1", "another kind"],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], available: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory(tmp_path) == available


def test_a_cache_that_does_not_fit_is_refused() -> None:
    settings = resolve({"input": {"height": 512, "width": 1024}, "train": {"cache": True}})
    needed = 5000 * 512 * 1024 * 4
    require_cache_fits(settings, 5000, needed)
    require_cache_fits(settings, 5000, None)
    require_cache_fits(resolve({}), 5000, 0)
    reason = r"keeps 5,000 photos of 1024 x 512 in memory, 9.8 GB, and 9.8 GB is available; use SET=train.cache=false"
    with pytest.raises(Failure, match=reason):
        require_cache_fits(settings, 5000, needed - 1)
