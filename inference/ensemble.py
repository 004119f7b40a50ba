"""Trained networks that answer together: every fold sees every view of a photograph, and the answers are averaged.

Probabilities are averaged where they are, on the device; no network's own prediction is stored anywhere.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from competition.settings import Precision, View
from folds.checkpoint import load_weights
from folds.device import autocast
from folds.frame import Frame

# A view is undone by the same flip that made it. Dimensions of (N, C, H, W).
FLIPS: dict[View, tuple[int, ...]] = {"identity": (), "hflip": (3,), "vflip": (2,), "rot180": (2, 3)}


class Ensemble:
    """Networks with the same frame.

    Args:
        networks: each takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        frame: their frame.
        views: the views that each network sees.
        device: where they compute.
        precision: what they compute in.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        frame: Frame,
        views: Sequence[View],
        *,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.networks = [network.to(device).to(memory_format=torch.channels_last).eval() for network in networks]
        self.frame = frame
        self.views = views
        self.device = device
        self.precision = precision

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.networks)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probability of car over all networks and views.

        Args:
            images: (N, h, w, 3) uint8 RGB in the frame.

        Returns:
            (N, 1, h, w) float32 on the device.
        """
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        total = torch.zeros(len(images), 1, *images.shape[1:3], device=self.device)
        for view in self.views:
            seen = flip(pixels, view)
            for network in self.networks:
                with autocast(self.precision, self.device):
                    logits = network(seen)
                total += flip(logits.float().sigmoid(), view)
        return total / (len(self.views) * len(self.networks))


def flip(images: Tensor, view: View) -> Tensor:
    """A view of (N, C, H, W) images; applied twice it gives them back."""
    return images.flip(FLIPS[view]) if FLIPS[view] else images


def load_ensembles(
    checkpoints: Sequence[Path], views: Sequence[View], *, device: torch.device, precision: Precision
) -> list[Ensemble]:
    """Checkpoints as ensembles, one for each frame that occurs among them.

    Raises:
        Failure: a checkpoint is missing or damaged.
    """
    by_frame: dict[Frame, list[nn.Module]] = {}
    for path in checkpoints:
        network, settings, _ = load_weights(path)
        by_frame.setdefault(Frame.of(settings.input), []).append(network)
    return [
        Ensemble(networks, frame, views, device=device, precision=precision) for frame, networks in by_frame.items()
    ]
