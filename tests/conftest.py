"""Fixtures that several test files share."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import in_process, server  # noqa: F401
from numpy.typing import NDArray
from PIL import Image
from submittable import small_test_set  # noqa: F401
from trained_run import trained, trained_once  # noqa: F401

ROOT = Path(__file__).parent.parent
os.environ.pop("CARVANA_MAKE", None)  # of `make test`: hints would repeat its variables
TINY_SHAPE = (64, 96)
CARS = [f"{number:012x}" for number in (0xC0FFEE, 0xBEEF, 0xFACE, 0xCAB, 0xDEED)]
TEST_CARS = [f"{number:012x}" for number in (0xFADE, 0xABBA)]
VIEWS = (1, 9)
# A shell starts background jobs with SIGINT ignored, and their children inherit that: also the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes have no place in the name of a test: a packed file contains the time at which it was packed."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: the other workers of pytest-xdist share the rest, and none ends long after the others."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder in Kaggle's layout: 5 training and 2 test cars, 2 views each, 96 x 64 pixels.

    A car is a bright blob on a gray, noisy background. Tests must not change it; ``own_data`` may be damaged.
    """
    root = tmp_path_factory.mktemp("tiny") / "carvana"
    for folder in ("train", "train_masks", "test"):
        (root / folder).mkdir(parents=True)
    codes: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for number, car in enumerate(CARS + TEST_CARS):
        kind = "train" if car in CARS else "test"
        for view in VIEWS:
            name = f"{car}_{view:02d}"
            photo, mask = tiny_car(seed=100 * number + view)
            Image.fromarray(photo).save(root / kind / f"{name}.jpg", quality=95)
            if kind == "train":
                save_mask(root / "train_masks" / f"{name}_mask.gif", mask)
            codes[kind][f"{name}.jpg"] = plain_encode(mask)
    write_rows(root / "train_masks.csv", codes["train"])
    write_rows(root / "sample_submission.csv", dict.fromkeys(codes["test"], ""))
    write_rows(root / "solution.csv", codes["test"])
    makes = ["Acura", "BMW", "Acura", "Kia", "BMW", "Kia", "Acura"]
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "year", "make", "model", "trim1", "trim2"])
        rows.writerows(
            [car, 2010, make, "X", "Base", "4dr"] for car, make in zip(CARS + TEST_CARS, makes, strict=True)
        )
    return root


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny_data`` that the test may damage."""
    return Path(shutil.copytree(tiny_data, tmp_path / "carvana"))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m MODULE ARGUMENTS`` in the test's folder and capture its output and exit status."""

    def run(module: str, *arguments: object, cwd: Path = tmp_path, timeout: float = 300, **environment: str):
        environment = {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"} | environment
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run


@contextmanager
def full_disk(size: int = 4096) -> Iterator[None]:
    """Limit the size in bytes of the files that this process writes, as on a full disk.

    Use it only around the tested call: pytest's own output may go to a larger file.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def tiny_car(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photo (64, 96, 3) and its mask (64, 96) of 0 and 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: TINY_SHAPE[0], : TINY_SHAPE[1]]
    middle_y, middle_x = rng.uniform(28, 36), rng.uniform(40, 56)
    mask = ((y - middle_y) / rng.uniform(12, 20)) ** 4 + ((x - middle_x) / rng.uniform(24, 36)) ** 4 < 1
    photo = rng.normal(120, 8, (*TINY_SHAPE, 3))
    photo[mask] += rng.uniform(60, 110, 3)
    return photo.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def save_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Save a palette image of indices 0 and 1, like Carvana's masks."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(path)


def plain_encode(mask: NDArray[np.uint8]) -> str:
    """Carvana's run-length code by its definition, pixel by pixel, without ``competition.rle``."""
    numbers: list[int] = []
    before = 0
    for position, pixel in enumerate(mask.ravel().tolist(), start=1):
        if pixel and not before:
            numbers += [position, 0]
        if pixel:
            numbers[-1] += 1
        before = pixel
    return " ".join(map(str, numbers))


def write_rows(path: Path, codes: dict[str, str]) -> None:
    """Write a CSV of img,rle_mask."""
    path.write_text("img,rle_mask\n" + "".join(f"{img},{code}\n" for img, code in codes.items()))
