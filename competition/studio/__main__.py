"""Generate a data set: ``python -m competition.studio --data data/synthetic --cars 20 --test-cars 4``."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from competition.command import parser, run_command
from competition.studio.data_set import Order, make


def main(argv: Sequence[str] | None = None) -> None:
    """Generate a data set."""
    options = parser("Generate cars, 16 photos each, in a folder with Kaggle's layout.")
    options.add_argument("--data", type=Path, default=Path("data/synthetic"), help="the folder to write")
    options.add_argument("--cars", type=_count, default=20, help="training cars")
    options.add_argument("--test-cars", type=_count, default=4, help="test cars")
    options.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes")
    options.add_argument("--workers", type=_count, default=os.cpu_count() or 1, help="processes")
    options.add_argument("--size", type=_size, default="1918x1280", help="width x height in pixels")
    chosen = options.parse_args(argv)
    width, height = chosen.size
    make(chosen.data, Order(chosen.cars, chosen.test_cars, chosen.seed, width, height), chosen.workers)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None or min(int(match[1]), int(match[2])) < 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 1918x1280 (64 pixels or more each way)")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_command(main)
