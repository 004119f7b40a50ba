"""The run-length codec and its score against the encoder and the comparison that public solutions use.

    python -m benchmarks.rle [--data DATA]

Prints a table and writes benchmarks/results/rle.json. What counts is the processor's time and not the clock's: on a
busy machine the clock mostly measures how long a process waits for its turn, and the longer way waits more often.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import metrics, rle
from competition.atomic import write_json
from competition.command import Failure, run_command
from competition.data_folder import read_rle_rows

SHAPE = (1280, 1918)
RESULTS = Path(__file__).parent / "results" / "rle.json"


def usual_encode(mask: NDArray[np.uint8]) -> str:
    """The encoder of most public solutions."""
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def decode_and_compare(first: str, second: str) -> float:
    """Dice from the pixels."""
    return metrics.dice(rle.decode(first, SHAPE), rle.decode(second, SHAPE))


def generated_codes(count: int) -> list[str]:
    """Codes with about as many runs as real ones: 764, one or two in each row that the car crosses."""
    rng = np.random.default_rng(1)
    codes = []
    for _ in range(count):
        mask = np.zeros(SHAPE, dtype=np.uint8)
        for row in range(400, 900):
            left, right = rng.integers(300, 420), rng.integers(1400, 1600)
            mask[row, left:right] = 1
            if row % 2:  # a gap below the car or in a wheel
                mask[row, 800:950] = 0
        codes.append(rle.encode(mask))
    return codes


def measure(codes: list[str], repeats: int) -> dict[str, Any]:
    """Median milliseconds of processor time of each way, and how many times as fast as the usual one."""
    masks = [rle.decode(code, SHAPE) for code in codes]
    ways: dict[str, Callable[[int], object]] = {
        "usual encode": lambda i: usual_encode(masks[i]),
        "rle.encode": lambda i: rle.encode(masks[i]),
        "rle.decode": lambda i: rle.decode(codes[i], SHAPE),
        "decode both, compare": lambda i: decode_and_compare(codes[i], codes[i - 1]),
        "metrics.dice_rle": lambda i: metrics.dice_rle(codes[i], codes[i - 1]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i, (mask, code) in enumerate(zip(masks, codes, strict=True)):
        if not usual_encode(mask) == rle.encode(mask) == code:
            raise Failure("the encoders disagree; the comparison means nothing")
        for name, way in ways.items():
            for _ in range(repeats):
                start = time.process_time()
                way(i)
                seconds[name].append(time.process_time() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {
        "masks": len(codes),
        "runs": statistics.mean(len(rle.parse(code)) for code in codes),
        "milliseconds": medians,
        "times as fast": {
            "rle.encode : usual encode": medians["usual encode"] / medians["rle.encode"],
            "rle.decode : rle.encode": medians["rle.encode"] / medians["rle.decode"],
            "metrics.dice_rle : decode both, compare": medians["decode both, compare"] / medians["metrics.dice_rle"],
        },
    }


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description="Time the run-length codec and the score of runs.")
    options.add_argument("--data", type=Path, help="data folder with train_masks.csv; by default generated masks")
    options.add_argument("--masks", type=int, default=32, help="number of masks")
    options.add_argument("--repeats", type=int, default=10, help="measurements of each way on each mask")
    options.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    arguments = options.parse_args()
    if arguments.data:
        # Every 13th: another view of another car.
        rows = islice(read_rle_rows(arguments.data / "train_masks.csv"), 0, 13 * arguments.masks, 13)
        codes = [code for _, _, code in rows]
    else:
        codes = generated_codes(arguments.masks)
    found = measure(codes, arguments.repeats)
    found["source"] = str(arguments.data or "generated")
    print(f"{found['masks']} masks of {SHAPE[1]} x {SHAPE[0]}, {found['runs']:.0f} runs each; median processor time")
    for name, value in found["milliseconds"].items():
        print(f"  {name:40} {value:6.3f} ms")
    print("times as fast")
    for name, value in found["times as fast"].items():
        print(f"  {name:40} {value:6.1f}")
    write_json(RESULTS, found)


if __name__ == "__main__":
    run_command(main)
