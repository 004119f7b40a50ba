"""The shared memory that batches of workers take."""

import os
from pathlib import Path
from typing import Any

import pytest

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds import ranks
from folds.shared_memory import PREFETCH, Shared, require_shared_memory, shared_bytes, shared_memory

MEGABYTE = 2**20


def settings_with(workers: int, batch_size: int, validated: int, size: int = 512, **train: Any) -> Settings:
    return resolve(
        {
            "input": {"height": size, "width": size},
            "train": {"workers": workers, "batch_size": batch_size, **train},
            "inference": {"batch_size": validated},
        }
    )


@pytest.mark.parametrize(
    ("workers", "batch_size", "validated", "accumulate", "measured"),
    [(2, 4, 4, 1, 21_032_960), (3, 2, 2, 3, 15_347_712), (2, 2, 8, 1, 25_284_608)],
)
def test_the_need_is_what_was_measured(
    workers: int, batch_size: int, validated: int, accumulate: int, measured: int
) -> None:
    """The peak of a tmpfs in the training of 64 photos and validation of 32, on a CPU."""
    settings = settings_with(workers, batch_size, validated, accumulate=accumulate)
    assert measured <= shared_bytes(settings, 64, 32, workers) < 1.01 * measured


@pytest.mark.parametrize(
    ("free", "total", "advice"),
    [
        (64 * MEGABYTE, 64 * MEGABYTE, r"docker run --shm-size=512m, or use SET=train.workers=0"),
        (2**15, 2**15, r"docker run --shm-size=512m, or use SET=train.workers=0"),
        (128 * MEGABYTE, 256 * MEGABYTE, r"docker run --shm-size=512m, or use SET=train.workers=1"),
        (2**15, 2**34, r"remove what other programs left in /dev/shm, or use SET=train.workers=0"),
    ],
)
def test_too_little_is_refused_with_the_sizes(free: int, total: int, advice: str) -> None:
    settings = settings_with(4, 8, 8, size=1024)
    with pytest.raises(
        Failure, match=rf"train.workers=4 with batches of 8 x 1024 x 1024 .* needs 288 MB; .*{advice}"
    ):
        require_shared_memory(settings, 1000, 200, Shared(free, total))


@pytest.mark.parametrize(("workers", "shared"), [(4, Shared(2**29, 2**29)), (4, None), (0, Shared(0, 2**15))])
def test_enough_is_accepted(workers: int, shared: Shared | None) -> None:
    require_shared_memory(settings_with(workers, 8, 8, size=1024), 1000, 200, shared)


def test_few_photos_and_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes of two machines: each of the four here has its own workers, and an eighth of every batch."""
    monkeypatch.setattr(ranks, "world", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    batch = 512 * 512 * 4
    assert 4 * 5 * batch <= shared_bytes(settings_with(2, 8, 1), 800, 8, 2) < 4.2 * 5 * batch
    assert 4 * batch <= shared_bytes(settings_with(2, 8, 1), 8, 1, 2) < 4.6 * batch, "one batch in an epoch"


def test_limits_of_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = shared_memory(tmp_path)
    assert found is not None
    assert 0 < found.free <= found.total
    assert shared_memory(tmp_path / "missing") is None
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255)))
    assert shared_memory(tmp_path) is None, "a tmpfs without a limit has no blocks"
    assert PREFETCH == 2, "the default of torch's DataLoader"
