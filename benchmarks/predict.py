"""Prediction end to end, compared with the networks alone and with segmentation-models-pytorch and ttach.

Without --run the networks are untrained: they compute, and a real mask replaces their output. It also prints the time
that the whole test set would take, the share of the networks, and the peak memory.
"""

import resource
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import usual
from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Target, in_turns, median_ratio, medians, peer, print_rows, report
from benchmarks.stand_ins import Computing, true_logits
from competition.command import parser, run_command
from competition.data_folder import DataFolder
from competition.photo import Photo
from competition.run.folder import run_at
from competition.settings.resolve import load_settings
from competition.settings.schema import TTA, Precision, Settings
from folds.device import pick_device, resolve_precision
from folds.frame import Frame
from folds.networks.build import make_network
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.predict import predict_to

TTAS: list[TTA] = ["identity", "hflip"]
WHOLE = 100_064
PEERS = ("segmentation-models-pytorch", "ttach")
# The same encoder under both libraries' names; the decoder is segmentation-models-pytorch's own default.
ENCODER = {  # like the peer's, which ends at full size
    "name": "timm_unet",
    "encoder": "mobilenetv2_100",
    "weights": "none",
    "decoder": [256, 128, 64, 32, 16],
    "stem": 1,
}
PEER_ENCODER = "mobilenet_v2"


class Case(NamedTuple):
    """Ensembles to measure, with their settings."""

    name: str
    ensembles: list[Ensemble]
    settings: Settings


def finish_on(device: torch.device) -> None:
    """Wait until the device has finished; GPU calls return immediately."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trained(name: str) -> Case:
    """All folds of a run."""
    run = run_at(name)
    settings = load_settings(run.settings)
    chosen = settings.inference
    paths = sorted(run.root.glob("fold*/best.safetensors"))
    ensembles = load_ensembles(paths, chosen, device=pick_device())
    return Case(f"run {run.name}, {len(paths)} folds, {len(chosen.tta)} TTA", ensembles, settings)


def untrained(preset: str, data: DataFolder, folds: int, compiled: bool) -> Case:
    """One untrained network of a preset for each fold, with two TTA."""
    settings = settings_of(preset, {"network": {"weights": "none"}})
    ensemble = computing_ensemble([make_network(settings) for _ in range(folds)], data, settings, "auto")
    if compiled:
        ensemble.compile(settings.inference.batch_size)
    name = f"preset {preset}{', compiled' if compiled else ''}, {folds} folds, {len(TTAS)} TTA"
    return Case(name, [ensemble], settings)


def computing_ensemble(
    networks: Sequence[nn.Module], data: DataFolder, settings: Settings, precision: Precision
) -> Ensemble:
    """An ensemble of untrained networks whose output is a real mask."""
    frame = Frame.of(settings.input)
    logits = true_logits(data.train[:1], data, frame)
    stand_ins = [Computing(network, logits) for network in networks]
    return Ensemble(stand_ins, frame, TTAS, device=pick_device(), precision=precision)


def batches_of(photos: Sequence[Photo], frame: Frame, size: int, device: torch.device) -> list[Tensor]:
    """The photos in the frame of the networks, on their device."""
    images = [torch.from_numpy(frame.read(photo)) for photo in photos]
    return [torch.stack(images[at : at + size]).to(device) for at in range(0, len(images), size)]


def networks_alone(work: Sequence[tuple[Ensemble, Sequence[Tensor]]]) -> None:
    """Run all networks and TTA on batches that are already on the device; the results stay there."""
    for ensemble, batches in work:
        for batch in batches:
            ensemble.probabilities(batch)
        finish_on(ensemble.device)


def end_to_end(file: Path, photos: Sequence[Photo], case: Case) -> None:
    """From photos on disk to a shard of a submission on disk."""
    predict_to(file, photos, case.ensembles, threshold=0.5, settings=case.settings.inference)


def peak_of(way: Callable[[], object]) -> float:
    """Peak GPU memory of a function, in GB."""
    torch.cuda.reset_peak_memory_stats()
    way()
    return torch.cuda.max_memory_allocated() / 1e9


def measure(case: Case, photos: Sequence[Photo], repeats: int, folder: Path) -> dict[str, Any]:
    """Measure the networks alone and the whole prediction, alternating."""
    device = pick_device()
    size = case.settings.inference.batch_size
    whole = partial(end_to_end, folder / "shard.csv.gz", photos, case)
    peak = peak_of(whole) if device.type == "cuda" else None  # before the batches for "networks alone" are allocated
    work = [(ensemble, batches_of(photos, ensemble.frame, size, device)) for ensemble in case.ensembles]
    ways: dict[str, Callable[[], object]] = {
        "networks alone": partial(networks_alone, work),
        "end to end": whole,
    }
    for way in ways.values():  # warm up
        way()
    seconds = in_turns(ways, repeats)
    rate = len(photos) / medians(seconds)["end to end"]
    return {
        "case": case.name,
        "input": [f"{ensemble.frame.width} x {ensemble.frame.height}" for ensemble in case.ensembles],
        "precision": resolve_precision(case.settings.inference.precision, device),
        "images_per_second": {name: len(photos) / value for name, value in medians(seconds).items()},
        "ratio": median_ratio(seconds["end to end"], seconds["networks alone"]),
        "gpu_memory_gb": peak,
        "host_memory_gb": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9,
        "hours_for_the_whole_test_set": WHOLE / rate / 3600,
    }


def print_case(found: dict[str, Any]) -> None:
    """One case as a table."""
    title = f"{found['case']}; input {', '.join(found['input'])}; {found['precision']}"
    print_rows(title, found["images_per_second"], "images/s")
    rest = {
        f"hours for {WHOLE:,} images, all folds and TTA": found["hours_for_the_whole_test_set"],
        "networks' share of the time, %": 100 / found["ratio"],
        "peak of the host's memory so far, GB": found["host_memory_gb"],
    }
    if found["gpu_memory_gb"] is not None:
        rest["peak of the GPU's memory, GB"] = found["gpu_memory_gb"]
    print_rows("  of this case", rest, "")


@torch.inference_mode()
def plain_loop(file: Path, photos: Sequence[Photo], network: nn.Module, settings: Settings) -> None:
    """The usual loop around a network that averages its own TTA: batch by batch, without threads."""
    device = pick_device()
    size, height, width = settings.inference.batch_size, settings.input.height, settings.input.width
    codes = []
    for start in range(0, len(photos), size):
        batch = photos[start : start + size]
        images = torch.from_numpy(np.stack([usual.read(photo.path, height, width) for photo in batch])).to(device)
        # The sigmoid is inside the wrapped network: otherwise ttach would average logits.
        probabilities = network(images).float().cpu().numpy()
        for photo, soft in zip(batch, probabilities, strict=True):
            codes.append(usual.encode(usual.mask_of(soft[0], photo.shape)))
    usual.write(file, [photo.img for photo in photos], codes)


def peer_network(data: DataFolder, settings: Settings) -> nn.Module:
    """segmentation-models-pytorch's U-Net, wrapped by ttach."""
    import segmentation_models_pytorch as smp  # type: ignore[import-not-found]
    import ttach  # type: ignore[import-not-found]

    logits = true_logits(data.train[:1], data, Frame.of(settings.input))
    network = nn.Sequential(Computing(smp.Unet(PEER_ENCODER, encoder_weights=None), logits), nn.Sigmoid())
    wrapped = ttach.SegmentationTTAWrapper(network, ttach.aliases.hflip_transform(), merge_mode="mean")
    made: nn.Module = wrapped.to(pick_device()).eval()
    return made


def against_peer(
    data: DataFolder, photos: Sequence[Photo], preset: str, repeats: int, folder: Path
) -> dict[str, Any]:
    """Images per second of one network with two TTA, with the same encoder, decoder and input as the peer."""
    settings = settings_of(preset, {"network": ENCODER})
    theirs = peer_network(data, settings)
    ways: dict[str, Callable[[], object]] = {
        "plain loop, smp with ttach, fp32": partial(plain_loop, folder / "peer.csv.gz", photos, theirs, settings)
    }
    precisions: list[Precision] = ["fp32", "auto"]
    for precision in precisions:
        ensemble = computing_ensemble([make_network(settings)], data, settings, precision)
        case = Case("", [ensemble], settings)
        name = resolve_precision(precision, ensemble.device)
        ways[f"ours, {name}"] = partial(end_to_end, folder / f"{name}.csv.gz", photos, case)
    for way in ways.values():
        way()
    rates = {name: len(photos) / value for name, value in medians(in_turns(ways, repeats)).items()}
    return {"input": f"{settings.input.width} x {settings.input.height}", "images_per_second": rates}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    gpu = pick_device().type == "cuda"
    arguments = parser("Time prediction end to end and its networks alone.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--run", help="a trained run; by default untrained networks")
    arguments.add_argument(
        "--presets",
        nargs="*",
        default=["gpu", "fullres"] if gpu else ["cpu"],
        help="their presets",
    )
    arguments.add_argument("--folds", type=int, default=5, help="number of untrained networks")
    arguments.add_argument("--compiled", action="store_true", help="measure compiled networks as well")
    arguments.add_argument("--images", type=int, default=512 if gpu else 24, help="number of photos")
    arguments.add_argument("--repeats", type=int, default=3, help="number of repetitions")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    photos = first(data.train, options.images)
    versions = {package: peer(package) for package in PEERS}
    targets, cases = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers = [
            partial(untrained, preset, data, options.folds, compiled)
            for preset in options.presets
            for compiled in ([False, True] if options.compiled else [False])
        ]
        for make in [partial(trained, options.run)] if options.run else makers:
            found = measure(make(), photos, options.repeats, folder)
            print_case(found)
            cases.append(found)
            targets.append(
                Target(f"end to end / networks alone, {found['case']}", found["ratio"], 1.15 if gpu else 1.10, True)
            )
        compared = None
        if all(versions.values()):
            compared = against_peer(data, photos, options.presets[0], options.repeats, folder)
            packages = " with ".join(f"{package} {version}" for package, version in versions.items())
            print_rows(
                f"{ENCODER['encoder']} U-Net, {compared['input']}, one network, two TTA; {packages}",
                compared["images_per_second"],
                "images/s",
            )
    result = {"data": str(data.root), "images": len(photos), "cases": cases, "peers": versions, "against": compared}
    report("predict", result, targets)


if __name__ == "__main__":
    run_command(main)
