"""Validation: the competition's score, per image at full size, independent of the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from competition import metrics
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.metrics import Scores
from folds.frame import Frame
from folds.validation import Validation, to_levels

FRAME = Frame(32, 64, "resize")
CPU = torch.device("cpu")


class Bright(nn.Module):
    """Bright pixels are car. Training mode would normalise differently. ``sizes`` records the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.sizes: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.sizes.append(len(pixels))
        logits: Tensor = self.norm(pixels.float().mean(1, keepdim=True) / 16 - 10)
        return logits


def plain(network: nn.Module, data: DataFolder, frame: Frame) -> tuple[float, float]:
    """The scores of the images, one at a time, from their pixels."""
    network.eval()
    dice, iou = [], []
    for photo in data.train:
        pixels = torch.from_numpy(frame.read(photo)).permute(2, 0, 1)[None]
        with torch.no_grad():
            levels = (network(pixels).sigmoid()[0, 0] * 255).round().byte().numpy()
        truth = data.truth(photo)
        mask = frame.full_size(levels, truth.shape) >= 128
        dice.append(metrics.dice(mask, truth))
        iou.append(metrics.iou(mask, truth))
    return float(np.mean(dice)), float(np.mean(iou))


def score(data: DataFolder, network: nn.Module, *, batch_size: int, workers: int = 0, frame: Frame = FRAME) -> Scores:
    validation = Validation(data.train, data, frame, batch_size=batch_size, workers=workers)
    return validation.score(network, CPU, "fp32")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_score_is_the_mean_over_images(tiny_data: Path, batch_size: int) -> None:
    """10 images in batches of 4: the smaller last batch counts, and every image has the same weight."""
    data, network = DataFolder(tiny_data), Bright()
    scores = score(data, network, batch_size=batch_size)
    assert sum(network.sizes) == scores.images == len(data.train) == 10
    dice, iou = plain(Bright(), data, FRAME)
    assert 0.5 < dice < 1
    assert scores.dice == pytest.approx(dice, abs=1e-12)
    assert scores.iou == pytest.approx(iou, abs=1e-12)


def test_images_of_different_sizes(own_data: Path) -> None:
    for number, path in enumerate(sorted((own_data / "train").iterdir())[:4]):
        size = (80 + 16 * number, 60 + 8 * number)
        mask = own_data / "train_masks" / f"{path.stem}_mask.gif"
        for file in (path, mask):
            with Image.open(file) as image:
                resized = image.resize(size, Image.Resampling.NEAREST)
            resized.save(file)
    (own_data / "train_masks.csv").unlink()
    data = DataFolder(own_data)
    scores = score(data, Bright(), batch_size=4)
    assert scores.dice == pytest.approx(plain(Bright(), data, FRAME)[0], abs=1e-12)


def test_padded_images(tiny_data: Path) -> None:
    data, frame = DataFolder(tiny_data), Frame(96, 128, "pad")
    scores = score(data, Bright(), batch_size=3, frame=frame)
    assert scores.dice == pytest.approx(plain(Bright(), data, frame)[0], abs=1e-12)


def test_workers_change_nothing(tiny_data: Path) -> None:
    data = DataFolder(tiny_data)
    assert score(data, Bright(), batch_size=4, workers=1) == score(data, Bright(), batch_size=4)


@pytest.mark.parametrize("training", [True, False])
def test_it_scores_in_evaluation_mode_and_restores_the_mode(tiny_data: Path, training: bool) -> None:
    network = Bright().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    score(DataFolder(tiny_data), network, batch_size=4)
    assert network.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_levels_are_rounded() -> None:
    levels = to_levels(torch.tensor([0.0, 0.499 / 255, 0.501 / 255, 0.5, 1.0]).view(1, 1, 1, 5))
    assert levels.dtype == torch.uint8
    assert levels.shape == (1, 1, 5)
    assert levels[0, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_batch_that_runs_out_of_memory_says_what_to_do(tiny_data: Path) -> None:
    class Large(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    reason = r"inference.batch_size=4 runs out of memory .*; run the same command with SET=inference.batch_size=1"
    with pytest.raises(Failure, match=reason):
        score(DataFolder(tiny_data), Large(), batch_size=4)
