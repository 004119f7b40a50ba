"""Time of the networks by torch, by compiled torch and by onnxruntime, alone and from the photo to the mask.

The ways alternate, so that their ratios hold on a busy machine. Networks are untrained and predict car everywhere.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Target, in_turns, median_ratio, medians, print_rows, report
from benchmarks.predict import TTAS, batches_of, networks_alone
from competition.command import parser, run_command
from competition.photo import Photo
from competition.settings.schema import Inference, Settings
from folds.device import pick_device, resolve_precision
from folds.frame import Frame
from folds.networks.build import make_network
from inference.engine.ensemble import Ensemble
from inference.engine.runtime import precision_of, resolve_engine
from inference.predict import predict_to

WAYS = {
    "torch": {"engine": "torch"},
    "torch, compiled": {"engine": "torch", "compile": True},
    "onnxruntime": {"engine": "onnxruntime"},
}
GAIN = 1.4  # of onnxruntime end to end that is aimed at on a CPU without bf16


class Ready(NamedTuple):
    """An ensemble, and the seconds that it took to make."""

    ensemble: Ensemble
    seconds: float


def all_car(settings: Settings) -> nn.Module:
    """An untrained network with logits of 5: its masks are as simple to encode as real ones, and it computes all."""
    network = make_network(settings, pretrained=False).eval()
    head = network.get_submodule("head")
    nn.init.zeros_(head.get_parameter("weight"))
    nn.init.constant_(head.get_parameter("bias"), 5.0)
    return network


def make(network: nn.Module, settings: Settings, way: str) -> Ready:
    """An ensemble of one network and two TTA."""
    start = time.perf_counter()
    how, device = Inference.model_validate(WAYS[way]), pick_device()
    ensemble = Ensemble(
        [network],
        Frame.of(settings.input),
        TTAS,
        device=device,
        precision=precision_of(how, device),
        engine=resolve_engine(how, device),
        batch_size=settings.inference.batch_size,
    )
    if how.compile:
        ensemble.compile(settings.inference.batch_size)
    return Ready(ensemble, time.perf_counter() - start)


def measure(preset: str, photos: Sequence[Photo], repeats: int, ways: Sequence[str], folder: Path) -> dict[str, Any]:
    """The time of each way of a preset, alone and end to end; all of them alternate."""
    settings = settings_of(preset, {"network": {"weights": "none"}} if preset not in ("demo", "scratch") else {})
    how, device = settings.inference, pick_device()
    network = all_car(settings)
    ready = {way: make(network, settings, way) for way in ways}
    batches = batches_of(photos, Frame.of(settings.input), how.batch_size, device)
    calls: dict[str, Callable[[], object]] = {}
    for way, (ensemble, _) in ready.items():
        calls[f"{way}, networks alone"] = partial(networks_alone, [(ensemble, batches)])
        file = folder / f"{preset} {way}.csv.gz"
        calls[f"{way}, end to end"] = partial(predict_to, file, photos, [ensemble], threshold=0.5, settings=how)
    for call in calls.values():  # warm up
        call()
    seconds = in_turns(calls, repeats)
    print_rows(
        f"preset {preset}, {settings.input.width} x {settings.input.height}, one network, {len(TTAS)} TTA",
        {name: 1000 * value / len(photos) for name, value in medians(seconds).items()},
        "ms/image",
    )
    kinds = ("networks alone", "end to end")
    gains = {
        kind: {way: median_ratio(seconds[f"torch, {kind}"], seconds[f"{way}, {kind}"]) for way in ways}
        for kind in kinds
    }
    for way in ways[1:]:
        rates = [f"{gains[kind][way]:.2f} {kind}" for kind in kinds]
        print(f"  {way}: times as fast as torch {', '.join(rates)}; ready after {ready[way].seconds:.1f} s")
    return {
        "preset": preset,
        "ms_per_image": {name: 1000 * value / len(photos) for name, value in medians(seconds).items()},
        "times_as_fast_as_torch": gains,
        "seconds_until_ready": {way: each.seconds for way, each in ready.items()},
        "auto": resolve_engine(Inference(), device),
    }


def targets_of(found: dict[str, Any], bf16: bool) -> list[Target]:
    """``auto`` is never slower than torch; on a CPU without bf16 onnxruntime is faster."""
    gain, preset = found["times_as_fast_as_torch"]["end to end"], found["preset"]
    targets = [Target(f"auto, times as fast as torch, {preset}", gain[found["auto"]], 1.0)]
    if not bf16:
        targets.append(Target(f"onnxruntime, times as fast as torch, {preset}", gain["onnxruntime"], GAIN))
    return targets


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time torch, compiled torch and onnxruntime on the CPU, alone and end to end.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--presets", nargs="*", default=["cpu", "scratch", "demo"], help="their networks")
    arguments.add_argument("--images", type=int, default=8, help="number of photos")
    arguments.add_argument("--repeats", type=int, default=5, help="number of repetitions")
    arguments.add_argument("--compiled", action="store_true", help="measure compiled torch as well")
    options = arguments.parse_args(argv)
    photos = first(data_folder(options.data).train, options.images)
    ways = [way for way in WAYS if options.compiled or way != "torch, compiled"]
    bf16 = resolve_precision("auto", pick_device()) != "fp32"
    cases, targets = [], []
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as name:
        for preset in options.presets:
            found = measure(preset, photos, options.repeats, ways, Path(name))
            cases.append(found)
            targets += targets_of(found, bf16)
    report("engines", {"images": len(photos), "bf16": bf16, "presets": cases}, targets)


if __name__ == "__main__":
    run_command(main)
