"""The RLE codec and the Dice of two RLEs, compared with the usual implementations and with pycocotools.

Times are CPU times, because wall time is unreliable on a busy machine. Each function is repeated several times in a
row, so that the mask is in the processor's cache, as in the pipeline.
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
from competition.rle import Mask, Shape

PEER = "pycocotools"
Seconds = Mapping[str, Sequence[float]]


def decode_and_compare(first: str, second: str, shape: Shape) -> float:
    """Dice from the pixels."""
    return metrics.dice(rle.decode(first, shape), rle.decode(second, shape))


def ways_of(mask: Mask, code: str, other: str, with_peer: bool) -> dict[str, Way]:
    """The functions to measure on one mask and its RLE, with the RLE of another mask to compare with."""
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

        # pycocotools is column-major: the transposed view of a row-major mask has that layout.
        ways[f"{PEER} encode, no text"] = lambda: coco.encode(mask.T)
    return ways


def require_agreement(mask: Mask, code: str, other: str, with_peer: bool) -> None:
    """Raise a Failure if two implementations give different results."""
    shape = (mask.shape[0], mask.shape[1])
    if not usual.encode(mask) == rle.encode(mask) == code:
        raise Failure("the encoders disagree; the comparison is meaningless")
    if not np.array_equal(rle.decode(code, shape), mask):
        raise Failure("decoding does not return the mask; the comparison is meaningless")
    if metrics.dice_rle(code, other) != decode_and_compare(code, other, shape):
        raise Failure("Dice from the spans and Dice from the pixels disagree; the comparison is meaningless")
    if with_peer:
        require_agreement_with_peer(mask, code)


def require_agreement_with_peer(mask: Mask, code: str) -> None:
    """Raise a Failure if pycocotools encodes the mask differently."""
    from pycocotools import mask as coco

    edges = [0, *rle.parse(code).ravel().tolist()]
    counts = np.diff(edges + [mask.size] * (edges[-1] < mask.size)).tolist()
    size = list(mask.T.shape)
    if coco.frPyObjects({"counts": counts, "size": size}, *size) != coco.encode(mask.T):
        raise Failure(f"the spans of rle.encode and of {PEER} differ; the comparison is meaningless")


def measure(codes: Sequence[str], shape: Shape, repeats: int, with_peer: bool) -> dict[str, list[float]]:
    """CPU seconds of each function, over all masks and repetitions."""
    seconds: dict[str, list[float]] = {}
    for number, code in enumerate(codes):
        mask, other = rle.decode(code, shape), codes[number - 1]
        require_agreement(mask, code, other, with_peer)
        for name, way in ways_of(mask, code, other, with_peer).items():
            seconds.setdefault(name, []).extend(in_turns({name: way}, repeats, time.process_time)[name])
    return seconds


def targets_of(times: Mapping[str, float]) -> list[Target]:
    """Ratios of the times, with their targets."""
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
    arguments = parser("Time the RLE codec and the Dice of two RLEs.")
    arguments.add_argument("--data", type=Path, help="data folder with train_masks.csv; by default generated cars")
    arguments.add_argument("--masks", type=int, default=32, help="number of masks")
    arguments.add_argument("--repeats", type=int, default=10, help="number of repetitions for each mask")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    shape = data.train[0].shape
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
    title = f"{len(codes)} masks of {shape[1]} x {shape[0]}, {spans:.0f} spans each; median CPU time"
    print_rows(title + (f"; {PEER} {version}" if version else ""), result["milliseconds"], "ms", digits=3)
    report("rle", result, targets_of(times))


if __name__ == "__main__":
    run_command(main)
