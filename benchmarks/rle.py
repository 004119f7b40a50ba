"""The run-length codec and its score against the encoder and the comparison that public solutions use, and against
pycocotools: ``python -m benchmarks.rle [--data DATA]``.

What counts is the processor's time and not the clock's: on a busy machine the clock mostly measures how long a
process waits for its turn, and the longer way waits more often. Each way is measured several times in a row, so that
all of them find their mask in the processor's cache, as the pipeline does, which has just made it.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import usual
from benchmarks.material import codes_of, data_folder
from benchmarks.measure import Target, Way, in_turns, medians, peer, print_rows, report
from competition import metrics, rle
from competition.command import Failure, parser, run_command
from competition.images import shape_of
from competition.rle import Mask, Shape

PEER = "pycocotools"
Seconds = Mapping[str, Sequence[float]]


def decode_and_compare(first: str, second: str, shape: Shape) -> float:
    """Dice from the pixels."""
    return metrics.dice(rle.decode(first, shape), rle.decode(second, shape))


def ways_of(mask: Mask, code: str, other: str, with_peer: bool) -> dict[str, Way]:
    """What is measured on one mask and its code, with the code of another mask to compare with."""
    shape = (mask.shape[0], mask.shape[1])
    ways: dict[str, Way] = {
        "usual encode": lambda: usual.encode(mask),
        "rle.encode": lambda: rle.encode(mask),
        "rle.decode": lambda: rle.decode(code, shape),
        "decode both, compare": lambda: decode_and_compare(code, other, shape),
        "metrics.dice_rle": lambda: metrics.dice_rle(code, other),
    }
    if with_peer:
        from pycocotools import mask as coco  # type: ignore[import-untyped]

        # It counts down the columns; the transposed view of a row-major mask is laid out just so.
        ways[f"{PEER} encode, no text"] = lambda: coco.encode(mask.T)
    return ways


def require_agreement(mask: Mask, code: str, other: str, with_peer: bool) -> None:
    """Raise unless all ways to the same answer give the same answer; else the comparison would mean nothing."""
    shape = (mask.shape[0], mask.shape[1])
    if not usual.encode(mask) == rle.encode(mask) == code:
        raise Failure("the encoders disagree; the comparison means nothing")
    if not np.array_equal(rle.decode(code, shape), mask):
        raise Failure("the decoder does not give the mask back; the comparison means nothing")
    if metrics.dice_rle(code, other) != decode_and_compare(code, other, shape):
        raise Failure("Dice from the spans and Dice from the pixels disagree; the comparison means nothing")
    if with_peer:
        require_agreement_with_peer(mask, code)


def require_agreement_with_peer(mask: Mask, code: str) -> None:
    """Raise unless our spans, in pycocotools' own form, are what it makes of the mask."""
    from pycocotools import mask as coco

    edges = [0, *rle.parse(code).ravel().tolist()]
    counts = np.diff(edges + [mask.size] * (edges[-1] < mask.size)).tolist()
    size = list(mask.T.shape)
    if coco.frPyObjects({"counts": counts, "size": size}, *size) != coco.encode(mask.T):
        raise Failure(f"the spans of rle.encode and of {PEER} differ; the comparison means nothing")


def measure(codes: Sequence[str], shape: Shape, repeats: int, with_peer: bool) -> dict[str, list[float]]:
    """Seconds of processor time of each way, over all masks and repeats."""
    seconds: dict[str, list[float]] = {}
    for number, code in enumerate(codes):
        mask, other = rle.decode(code, shape), codes[number - 1]
        require_agreement(mask, code, other, with_peer)
        for name, way in ways_of(mask, code, other, with_peer).items():
            seconds.setdefault(name, []).extend(in_turns({name: way}, repeats, time.process_time)[name])
    return seconds


def targets_of(times: Mapping[str, float]) -> list[Target]:
    """How many times as fast one way is as another, and how many it should be."""
    encode = times["rle.encode"]
    targets = [
        Target("usual encode / rle.encode", times["usual encode"] / encode, 5),
        Target("rle.encode / rle.decode", encode / times["rle.decode"], 1),
        Target("decode and compare / dice_rle", times["decode both, compare"] / times["metrics.dice_rle"], 10),
    ]
    coco = times.get(f"{PEER} encode, no text")
    return targets + ([Target(f"{PEER} encode / rle.encode", coco / encode, 2)] if coco else [])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time the run-length codec and the score of spans.")
    arguments.add_argument("--data", type=Path, help="data folder with train_masks.csv; by default generated cars")
    arguments.add_argument("--masks", type=int, default=32, help="number of masks")
    arguments.add_argument("--repeats", type=int, default=10, help="measurements of each way on each mask")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    shape = shape_of(data.train[0].path)
    codes = codes_of(data, options.masks)
    version = peer(PEER)
    times = medians(measure(codes, shape, options.repeats, version is not None))
    spans = statistics.mean(len(rle.parse(code)) for code in codes)
    result: dict[str, Any] = {
        "data": str(data.root),
        "masks": len(codes),
        "spans": spans,
        "peer": f"{PEER} {version}" if version else None,
        "milliseconds": {name: 1000 * seconds for name, seconds in times.items()},
    }
    title = f"{len(codes)} masks of {shape[1]} x {shape[0]}, {spans:.0f} spans each; median processor time"
    print_rows(title + (f"; {PEER} {version}" if version else ""), result["milliseconds"], "ms", digits=3)
    report("rle", result, targets_of(times))


if __name__ == "__main__":
    run_command(main)
