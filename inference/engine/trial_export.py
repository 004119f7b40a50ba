"""A trial: can onnxruntime compute the networks of a run? If it cannot, ``inference.engine=auto`` is torch.

torch's exporter does not know every operation of every encoder. So a small untrained network with the run's settings
is exported and compared with torch. The result depends on the network and on the packages only, so that all commands
choose the same engine. It is kept in the folder of the run: commands that have nothing to do need no second trial.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from competition.command import Failure
from competition.packages import installed
from competition.run.folder import RunFolder
from competition.run.records import TrialExport
from competition.settings.resolve import load_settings
from competition.settings.schema import Inference, Settings
from folds.frame import Frame
from folds.networks.build import make_network
from inference.engine.onnx_network import OnnxNetwork
from inference.engine.runtime import resolve_engine

PACKAGES = ("torch", "timm", "onnx", "onnxruntime")
LARGEST = 8  # sides of the frame of a trial, in multiples of the network's divisor: a large one takes long
TOLERANCE = 1e-3  # of logits, relative to the largest; usual differences are below 1e-5

_tried: dict[str, str] = {}  # by settings: several runs may have the same network


def with_able_engine(how: Inference, device: torch.device, runs: Sequence[RunFolder]) -> Inference:
    """The settings with an engine that can compute the networks of all runs: ``auto`` may become torch.

    A line says so. An engine that is chosen by hand is kept.
    """
    if how.engine != "auto" or resolve_engine(how, device) == "torch":
        return how
    for run in runs:
        if problem := problem_of(run):
            print(f"note: torch computes the networks of run {run.name}, because {problem}", flush=True)
            return how.model_copy(update={"engine": "torch"})
    return how


def problem_of(run: RunFolder) -> str:
    """Why onnxruntime cannot compute the networks of a run; empty if it can."""
    settings = load_settings(run.settings)
    packages = {name: installed(name)[1] for name in PACKAGES}
    with suppress(Failure):  # a damaged file is written again
        kept = TrialExport.read_if_exists(run.trial_export)
        if kept and (kept.network, kept.packages) == (settings.network, packages):
            return kept.problem
    chosen = settings.model_dump_json(include={"network", "input"})
    if chosen not in _tried:
        _tried[chosen] = _try(settings)
    with suppress(Failure):  # a folder that cannot be written to
        TrialExport(network=settings.network, packages=packages, problem=_tried[chosen]).write(run.trial_export)
    return _tried[chosen]


def _try(settings: Settings) -> str:
    """The problem of an untrained network with these settings; empty if it has none."""
    network: Any = make_network(settings, pretrained=False).eval()
    height, width = (min(side, LARGEST * network.divisor) for side in (settings.input.height, settings.input.width))
    try:
        computed = OnnxNetwork(network, Frame(height, width, "resize"), torch.get_num_threads())
        # More than one image: operations may contain the number of images that the network was exported with.
        pixels = torch.arange(2 * 3 * height * width).remainder(251).to(torch.uint8).view(2, 3, height, width)
        with torch.inference_mode():
            expected, found = network(pixels), computed(pixels)
    except Failure as failure:
        return str(failure).partition("; ")[0]
    except Exception as error:  # onnxruntime has an exception for each status, with no common base
        return f"onnxruntime cannot compute this network ({' '.join(str(error).split())[:200]})"
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    return "" if difference <= TOLERANCE else f"its logits by onnxruntime differ from torch's by {difference:.1e}"
