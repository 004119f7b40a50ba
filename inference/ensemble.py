"""Trained networks that answer together: every fold sees every view of a photograph, and the answers are averaged.

Probabilities are averaged where they are, on the device; no network's own prediction is stored anywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.settings import Inference, Precision, View
from folds.checkpoint import load_weights
from folds.device import autocast, autocast_dtype
from folds.frame import Frame
from inference.fusion import fused, stored_as

# A view is undone by the same flip that made it. Dimensions of (N, C, H, W).
FLIPS: dict[View, tuple[int, ...]] = {"identity": (), "hflip": (3,), "vflip": (2,), "rot180": (2, 3)}


class Ensemble:
    """Networks with the same frame, made ready to predict.

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
        dtype = autocast_dtype(precision, device)
        ready = [stored_as(fused(network.eval()), dtype).to(device) for network in networks]
        self.networks = [network.to(memory_format=torch.channels_last) for network in ready]
        self.frame = frame
        self.views = views
        self.device = device
        self.precision = precision
        self.at_most: int | None = None  # photographs that the device has memory for at once; None: not yet known
        self.compiled_for: int | None = None  # photographs at once that there is compiled code for

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.networks)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probability of car over all networks and views.

        Where the device has no memory for all images at once they go through in parts, from then on.

        Args:
            images: (N, h, w, 3) uint8 RGB in the frame.

        Returns:
            (N, 1, h, w) float32 on the device.

        Raises:
            Failure: there is no memory for a single image.
        """
        answer = self._in_parts(images)
        while answer is None:
            tried = min(len(images), self.at_most or len(images))
            if tried == 1:
                raise Failure(
                    f"{self.device} has no memory for one photograph of {self.frame.width} x {self.frame.height}; "
                    "end what else uses it, or take a device with more"
                )
            self.at_most = tried // 2
            torch.cuda.empty_cache()
            answer = self._in_parts(images)
        return answer

    def compile(self, batch_size: int) -> None:
        """Let torch.compile make code for batches of one size, now rather than within the first batch.

        Raises:
            Failure: it cannot.
        """
        # Frozen weights may be laid out as the processor likes them best.
        options: Any = {"freezing": True} if self.device.type == "cpu" else None
        made: Any = [torch.compile(network, dynamic=False, options=options) for network in self.networks]
        self.networks = made
        self.compiled_for = batch_size
        try:
            self.probabilities(torch.zeros(batch_size, self.frame.height, self.frame.width, 3, dtype=torch.uint8))
        except Exception as error:  # the compiler's own, and those of the compilers it calls
            reason = " ".join(str(error).split())[:200]
            raise Failure(
                f"torch.compile cannot compile the networks here ({reason}); install a C++ compiler such as g++, or "
                "predict without: SET=inference.compile=false"
            ) from error

    def _in_parts(self, images: Tensor) -> Tensor | None:
        """The mean probabilities, or None where the device has no memory for as many images at once."""
        try:
            parts = [self._mean(part) for part in torch.split(images, self.at_most or max(1, len(images)))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except torch.cuda.OutOfMemoryError:
            return None

    def _mean(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        size = min(self.compiled_for or 0, self.at_most or self.compiled_for or 0)
        if len(pixels) < size:  # there is code for this number of images only
            pixels = torch.cat([pixels, pixels[:1].expand(size - len(pixels), -1, -1, -1)])
        total: Tensor | None = None
        for view in self.views:
            seen = flip(pixels, view)
            for network in self.networks:
                with autocast(self.precision, self.device):
                    logits = network(seen)
                answer = flip(logits.float().sigmoid(), view)
                total = answer if total is None else total.add_(answer)
        assert total is not None
        return total[: len(images)].div_(len(self.views) * len(self.networks))


def flip(images: Tensor, view: View) -> Tensor:
    """A view of (N, C, H, W) images; applied twice it gives them back."""
    return images.flip(FLIPS[view]) if FLIPS[view] else images


def load_ensembles(checkpoints: Sequence[Path], settings: Inference, *, device: torch.device) -> list[Ensemble]:
    """Checkpoints as ensembles, one for each frame that occurs among them.

    Args:
        checkpoints: files of trained weights.
        settings: views, precision, and whether to compile for which batch size.
        device: where to predict.

    Raises:
        Failure: a checkpoint is missing or damaged, or torch.compile refuses.
    """
    by_frame: dict[Frame, list[nn.Module]] = {}
    for path in checkpoints:
        network, made_with, _ = load_weights(path)
        by_frame.setdefault(Frame.of(made_with.input), []).append(network)
    ensembles = [
        Ensemble(networks, frame, settings.views, device=device, precision=settings.precision)
        for frame, networks in by_frame.items()
    ]
    if settings.compile:
        for ensemble in ensembles:
            ensemble.compile(settings.batch_size)
    return ensembles
