"""Networks for measurements: their answers are real masks, so that what follows a network has real work to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from competition.data_folder import DataFolder, Photo
from folds.frame import Frame


def made_up_weights(encoder: str, folder: Path) -> Path:
    """A file of weights for a timm encoder, which has not learned anything: a step takes as long as with others."""
    file = folder / f"{encoder}.safetensors"
    safetensors.torch.save_file(timm.create_model(encoder, features_only=True).state_dict(), file)
    return file


def soft_answers(photos: Sequence[Photo], data: DataFolder, frame: Frame) -> Tensor:
    """The logits of a network that knows the masks: (N, 1, h, w) float32, soft along the outline."""
    targets = np.stack([frame.target(data.truth(photo)) for photo in photos])
    levels = torch.from_numpy(targets).unsqueeze(1).float().clamp(0.5, 254.5)
    return (levels / 255).logit()


class Replay(nn.Module):
    """Does nothing: gives prepared answers out one after the other, and begins again behind the last.

    Args:
        answers: (N, 1, h, w) logits in the order in which the photos will come, in one view.
    """

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers
        self.next = 0

    def forward(self, images: Tensor) -> Tensor:
        """As many answers as there are images."""
        start = self.next
        self.next = (start + len(images)) % len(self.answers)
        return self.answers[start : start + len(images)]


class Computing(nn.Module):
    """Lets an untrained network compute, and then gives the same mask for every photo.

    What an untrained network says is noise, of a thousand times as many runs as a car has.

    Args:
        network: takes images and returns (N, 1, h, w) logits.
        answer: (1, 1, h, w) logits.
    """

    answer: Tensor

    def __init__(self, network: nn.Module, answer: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("answer", answer)

    def forward(self, images: Tensor) -> Tensor:
        """The answer, once for each image."""
        # What the network says goes in, too little to matter: a compiler leaves out what nobody needs.
        return self.answer + 1e-6 * cast(Tensor, self.network(images))
