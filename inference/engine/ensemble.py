"""Trained networks that answer together: every fold sees every view of a photo, and the answers are averaged.

Probabilities are averaged where they are, on the device. A component of the average is one network's answer to one
view; components leave the device only where it is measured what each adds, and are stored nowhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.schema import TTA, Inference, Precision
from folds.checkpoint import load_weights
from folds.device import autocast, autocast_dtype
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine.fusion import fused, stored_as

# A view is undone by the same flip that made it. Dimensions of (N, C, H, W).
FLIPS: dict[TTA, tuple[int, ...]] = {"identity": (), "hflip": (3,), "vflip": (2,), "rot180": (2, 3)}


class Ensemble:
    """Networks with the same frame, made ready to predict.

    Args:
        networks: each takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        frame: their frame.
        tta: the test-time augmentations that are averaged.
        device: where they compute.
        precision: what they compute in.
        weights: how much each network counts in the average; by default 1.
        places: the number of each among all that answer, in this ensemble and others; by default they are all.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        frame: Frame,
        tta: Sequence[TTA],
        *,
        device: torch.device,
        precision: Precision,
        weights: Sequence[float] | None = None,
        places: Sequence[int] | None = None,
    ) -> None:
        dtype = autocast_dtype(precision, device)
        ready = [stored_as(fused(network.eval()), dtype).to(device) for network in networks]
        self.networks = [network.to(memory_format=torch.channels_last) for network in ready]
        self.frame = frame
        self.tta = tta
        self.device = device
        self.precision = precision
        self.weights = weights or [1.0] * len(networks)
        self.places = places or range(len(networks))
        self.at_most: int | None = None  # photos that the device has memory for at once; None: not yet known
        self.compiled_for: int | None = None  # photos at once that there is compiled code for

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.networks)

    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probability of car over all networks and views: what ``answer`` returns first."""
        return self.answer(images)[0]

    @torch.inference_mode()
    def answer(self, images: Tensor, *, components: bool = False) -> tuple[Tensor, Tensor | None]:
        """The weighted mean of the probabilities of car over all networks and views.

        Where the device has no memory for all images at once they go through in parts, from then on.

        Args:
            images: (N, h, w, 3) uint8 RGB in the frame.
            components: whether what the mean is made of is wanted too.

        Returns:
            (N, 1, h, w) float32 on the device; and there the components, view by view and in each network by network,
            (N, P, h, w) uint8 levels, or None where they are not wanted.

        Raises:
            Failure: there is no memory for a single image.
        """
        answer = self._in_parts(images, components)
        while answer is None:
            tried = min(len(images), self.at_most or len(images))
            if tried == 1:
                raise Failure(
                    f"{self.device} has no memory for one photo of {self.frame.width} x {self.frame.height}; "
                    "end what else uses it, or take a device with more"
                )
            self.at_most = tried // 2
            torch.cuda.empty_cache()
            answer = self._in_parts(images, components)
        return answer

    def compile(self, batch_size: int) -> None:
        """Let torch.compile make code for batches of one size, now rather than within the first batch.

        Raises:
            Failure: it cannot.
        """
        made: Any = [torch.compile(network, dynamic=False) for network in self.networks]
        self.networks = made
        self.compiled_for = batch_size
        try:
            self.probabilities(torch.zeros(batch_size, self.frame.height, self.frame.width, 3, dtype=torch.uint8))
        except Failure:  # ``answer``'s own, of memory
            raise
        except Exception as error:  # the compiler's own, and those of the compilers it calls
            reason = " ".join(str(error).split())[:200]
            raise Failure(
                f"torch.compile cannot compile the networks here ({reason}); install a C++ compiler such as g++, or "
                "predict without: SET=inference.compile=false"
            ) from error

    def _in_parts(self, images: Tensor, components: bool) -> tuple[Tensor, Tensor | None] | None:
        """The answer, or None where the device has no memory for as many images at once."""
        try:
            split = torch.split(images, self.at_most or max(1, len(images)))
            answers = [self._answer(part, components) for part in split]
            if len(answers) == 1:
                return answers[0]
            each = [levels for _, levels in answers if levels is not None]
            return torch.cat([mean for mean, _ in answers]), torch.cat(each) if components else None
        except torch.cuda.OutOfMemoryError:
            return None

    def _answer(self, images: Tensor, components: bool) -> tuple[Tensor, Tensor | None]:
        # A copy, so that it is an inference tensor as its flips are: an ordinary one would be compiled for anew.
        pixels = images.to(self.device, non_blocking=True, copy=True).permute(0, 3, 1, 2)
        size = min(self.compiled_for or 0, self.at_most or self.compiled_for or 0)
        if len(pixels) < size:  # there is code for this number of images only
            pixels = torch.cat([pixels, pixels[:1].expand(size - len(pixels), -1, -1, -1)])
        total: Tensor | None = None
        each: list[Tensor] = []
        for tta in self.tta:
            seen = flip(pixels, tta)
            for network, weight in zip(self.networks, self.weights, strict=True):
                with autocast(self.precision, self.device):
                    logits = network(seen)
                answer = flip(logits.float().sigmoid(), tta)
                if components:
                    each.append(to_levels(answer[: len(images)]))
                if weight != 1:
                    answer.mul_(weight)
                total = answer if total is None else total.add_(answer)
        assert total is not None
        mean = total[: len(images)].div_(len(self.tta) * sum(self.weights))
        return mean, torch.stack(each, dim=1) if components else None


def flip(images: Tensor, tta: TTA) -> Tensor:
    """A view of (N, C, H, W) images; applied twice it gives them back."""
    return images.flip(FLIPS[tta]) if FLIPS[tta] else images


def load_ensembles(
    checkpoints: Sequence[Path], settings: Inference, *, device: torch.device, shares: Sequence[float] | None = None
) -> list[Ensemble]:
    """Checkpoints as ensembles, one for each frame that occurs among them.

    Args:
        checkpoints: files of trained weights.
        settings: views, precision, and whether to compile for which batch size.
        device: where to predict.
        shares: how much each counts, on any scale; by default all the same. One that does not count is not loaded.

    Raises:
        Failure: a checkpoint is missing or damaged, or torch.compile refuses.
    """
    shares = shares or [1.0] * len(checkpoints)
    largest = max(shares)  # by which all are divided: equal ones have the weight 1, which changes no bit of a sum
    networks: dict[int, nn.Module] = {}
    by_frame: dict[Frame, list[int]] = {}
    for place, (path, share) in enumerate(zip(checkpoints, shares, strict=True)):
        if share:
            networks[place], made_with, _ = load_weights(path)
            by_frame.setdefault(Frame.of(made_with.input), []).append(place)
    ensembles = [
        Ensemble(
            [networks[place] for place in places],
            frame,
            settings.tta,
            device=device,
            precision=settings.precision,
            weights=[shares[place] / largest for place in places],
            places=places,
        )
        for frame, places in by_frame.items()
    ]
    if settings.compile:
        for ensemble in ensembles:
            ensemble.compile(settings.batch_size)
    return ensembles
