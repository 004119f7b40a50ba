"""Trained networks that predict together: their probabilities are averaged, over all test-time augmentations too.

The mean is computed on the device. One network's probabilities for one test-time augmentation are a *component* of
the mean. Components are returned only where the gain of each part is measured, and are never stored. Means with other
member weights can be returned too: they cost one sum each, and no network runs again for them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.schema import TTA, Inference, Precision
from folds.checkpoint import load_weights
from folds.device import autocast, autocast_dtype, does_not_fit
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine.fusion import cast_weights, fuse_batch_norm
from inference.engine.onnx_network import OnnxNetwork
from inference.engine.runtime import Runtime, precision_of, resolve_engine

Network = Callable[[Tensor], Tensor]  # (N, 3, h, w) uint8 RGB to (N, 1, h, w) logits

# The dimensions of (N, C, H, W) that each test-time augmentation flips; the same flip undoes it.
FLIPS: dict[TTA, tuple[int, ...]] = {"identity": (), "hflip": (3,), "vflip": (2,), "rot180": (2, 3)}


class Means(NamedTuple):
    """What an ensemble predicts for N images.

    Attributes:
        mean: (N, 1, h, w) float32 on the device.
        components: (N, P, h, w) uint8 levels on the device, ordered by augmentation and then by network; None if not
            requested.
        others: (N, K, h, w) uint8 levels on the device, of the means with K other member weights; None if none were
            requested.
    """

    mean: Tensor
    components: Tensor | None = None
    others: Tensor | None = None


class Ensemble:
    """Networks with the same frame, prepared for prediction.

    Args:
        networks: each takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        frame: their frame.
        tta: the test-time augmentations that are averaged.
        device: where they compute.
        precision: what they compute in.
        engine: what computes them.
        batch_size: images that are usually predicted at once.
        member_weights: the weight of each network in the mean; by default 1.
        indices: the index of each network among the networks of all ensembles; by default 0, 1, 2, ...
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        frame: Frame,
        tta: Sequence[TTA],
        *,
        device: torch.device,
        precision: Precision,
        engine: Runtime = "torch",
        batch_size: int = 1,
        member_weights: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        if engine == "onnxruntime":
            threads = torch.get_num_threads()
            self.networks: list[Network] = [OnnxNetwork(network, frame, threads, batch_size) for network in networks]
        else:
            dtype = autocast_dtype(precision, device)
            ready = [cast_weights(fuse_batch_norm(network.eval()), dtype).to(device) for network in networks]
            self.networks = [network.to(memory_format=torch.channels_last) for network in ready]
        self.frame = frame
        self.tta = tta
        self.device = device
        self.precision = precision
        self.member_weights = member_weights or [1.0] * len(networks)
        self.indices = indices or range(len(networks))
        self.memory_limit: int | None = None  # photos that fit the device's memory at once; None: not known yet
        self.compiled_size: int | None = None  # the batch size that the networks are compiled for

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.networks)

    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probability of car: the first result of ``predict``."""
        return self.predict(images).mean

    @torch.inference_mode()
    def predict(self, images: Tensor, *, components: bool = False, others: Sequence[Sequence[float]] = ()) -> Means:
        """The weighted mean of the probabilities of car over all networks and test-time augmentations.

        If the device runs out of memory, this batch and all later ones are predicted in smaller parts.

        Args:
            images: (N, h, w, 3) uint8 RGB in the frame.
            components: whether to return the components of the mean too.
            others: other weights of each network, for which to return the mean too.
        """
        prediction = self._predict_in_parts(images, components, others)
        while prediction is None:
            tried = min(len(images), self.memory_limit or len(images))
            if tried == 1:
                raise Failure(
                    f"{self.device} has no memory for one photo of {self.frame.width} x {self.frame.height}; "
                    "end other processes that use it, or use a device with more memory"
                )
            self.memory_limit = tried // 2
            torch.cuda.empty_cache()
            prediction = self._predict_in_parts(images, components, others)
        return prediction

    def compile(self, batch_size: int) -> None:
        """Compile the networks with torch.compile for one batch size, now and not during the first batch."""
        compiled: Any = [torch.compile(network, dynamic=False) for network in self.networks]
        self.networks = compiled
        self.compiled_size = batch_size
        try:
            self.probabilities(torch.zeros(batch_size, self.frame.height, self.frame.width, 3, dtype=torch.uint8))
        except Failure:  # out of memory
            raise
        except Exception as error:  # of torch.compile, or of the C++ or CUDA compiler that it calls
            reason = " ".join(str(error).split())[:200]
            raise Failure(
                f"torch.compile failed ({reason}); install a C++ compiler such as g++, or predict without it: "
                "SET=inference.compile=false"
            ) from error

    def _predict_in_parts(self, images: Tensor, components: bool, others: Sequence[Sequence[float]]) -> Means | None:
        """The prediction, or None if the device runs out of memory."""
        try:
            parts = torch.split(images, self.memory_limit or max(1, len(images)))
            predictions = [self._predict(part, components, others) for part in parts]
            if len(predictions) == 1:
                return predictions[0]
            mean, *more = (None if each[0] is None else torch.cat(each) for each in zip(*predictions, strict=True))
            assert mean is not None
            return Means(mean, *more)
        except RuntimeError as error:
            if does_not_fit(error):
                return None
            raise

    def _predict(self, images: Tensor, components: bool, others: Sequence[Sequence[float]]) -> Means:
        # A copy is an inference tensor, as its flips are. For a tensor of another kind torch.compile compiles again.
        pixels = images.to(self.device, non_blocking=True, copy=True).permute(0, 3, 1, 2)
        size = min(self.compiled_size or 0, self.memory_limit or self.compiled_size or 0)
        if len(pixels) < size:  # fill a short batch up to the size that the networks are compiled for
            pixels = torch.cat([pixels, pixels[:1].expand(size - len(pixels), -1, -1, -1)])
        weightings = [self.member_weights, *others]
        sums: list[Tensor | None] = [None] * len(weightings)
        each: list[Tensor] = []
        for tta in self.tta:
            augmented = flip(pixels, tta)
            for place, network in enumerate(self.networks):
                with autocast(self.precision, self.device):
                    logits = network(augmented)
                probabilities = flip(logits.float().sigmoid(), tta)[: len(images)]
                if components:
                    each.append(to_levels(probabilities))
                sums = [
                    add_weighted(total, probabilities, weights[place])
                    for total, weights in zip(sums, weightings, strict=True)
                ]
        mean, *means = [
            torch.zeros_like(probabilities) if total is None else total / (len(self.tta) * sum(weights))
            for total, weights in zip(sums, weightings, strict=True)
        ]
        return Means(
            mean,
            torch.stack(each, dim=1) if components else None,
            torch.stack([to_levels(other) for other in means], dim=1) if means else None,
        )


def add_weighted(total: Tensor | None, probabilities: Tensor, weight: float) -> Tensor | None:
    """A sum with a weighted component added; None is the sum of nothing. No argument is changed."""
    if not weight:
        return total
    weighted = probabilities if weight == 1 else probabilities * weight
    return weighted if total is None else total + weighted


def flip(images: Tensor, tta: TTA) -> Tensor:
    """A test-time augmentation of (N, C, H, W) images; applied twice, it returns the original."""
    return images.flip(FLIPS[tta]) if FLIPS[tta] else images


def load_ensembles(
    checkpoints: Sequence[Path],
    settings: Inference,
    *,
    device: torch.device,
    member_weights: Sequence[float] | None = None,
) -> list[Ensemble]:
    """Load checkpoints as ensembles, one for each frame that occurs among them.

    Args:
        checkpoints: files of trained weights.
        settings: test-time augmentations, engine, precision, whether to compile, and for which batch size.
        device: where to predict.
        member_weights: the weight of each checkpoint, on any scale; by default all equal. Checkpoints with weight 0
            are not loaded.
    """
    member_weights = relative(member_weights or [1.0] * len(checkpoints))
    networks: dict[int, nn.Module] = {}
    by_frame: dict[Frame, list[int]] = {}
    for index, (path, weight) in enumerate(zip(checkpoints, member_weights, strict=True)):
        if weight:
            networks[index], trained_with, _ = load_weights(path)
            by_frame.setdefault(Frame.of(trained_with.input), []).append(index)
    ensembles = [
        Ensemble(
            [networks[index] for index in indices],
            frame,
            settings.tta,
            device=device,
            precision=precision_of(settings, device),
            engine=resolve_engine(settings, device),
            batch_size=settings.batch_size,
            member_weights=[member_weights[index] for index in indices],
            indices=indices,
        )
        for frame, indices in by_frame.items()
    ]
    if settings.compile:
        for ensemble in ensembles:
            ensemble.compile(settings.batch_size)
    return ensembles


def relative(weights: Sequence[float]) -> list[float]:
    """Weights divided by the largest: equal weights become 1, which changes no bit of a sum."""
    return [weight / max(weights) for weight in weights]
