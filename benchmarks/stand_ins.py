"""Networks for benchmarks whose output is a real mask, so that the following stages have real work."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from competition.data_folder import DataFolder
from competition.photo import Photo
from folds.frame import Frame


def made_up_weights(encoder: str, folder: Path) -> Path:
    """Save untrained weights of a timm encoder; a training step takes as long as with pretrained ones."""
    file = folder / f"{encoder}.safetensors"
    safetensors.torch.save_file(timm.create_model(encoder, features_only=True).state_dict(), file)
    return file


def true_logits(photos: Sequence[Photo], data: DataFolder, frame: Frame) -> Tensor:
    """The logits of a perfect network: (N, 1, h, w) float32, soft along the outline."""
    targets = np.stack([frame.target(data.truth(photo)) for photo in photos])
    levels = torch.from_numpy(targets).unsqueeze(1).float().clamp(0.5, 254.5)
    return (levels / 255).logit()


class Replay(nn.Module):
    """Returns prepared logits one after the other, and starts again after the last.

    Args:
        logits: (N, 1, h, w), in the order of the photos.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.next = 0

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the next images."""
        start = self.next
        self.next = (start + len(images)) % len(self.logits)
        return self.logits[start : start + len(images)]


class Computing(nn.Module):
    """Runs an untrained network, and returns the same mask for every photo.

    The output of an untrained network is noise with a thousand times as many spans as a car.

    Args:
        network: takes images and returns (N, 1, h, w) logits.
        logits: (1, 1, h, w).
    """

    logits: Tensor

    def __init__(self, network: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("logits", logits)

    def forward(self, images: Tensor) -> Tensor:
        """The same logits for each image."""
        # The output of the network is added, scaled down: a compiler would remove unused work.
        return self.logits + 1e-6 * cast(Tensor, self.network(images))
