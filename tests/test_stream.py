"""Photographs in, results out."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.data_folder import Photo, photo_at
from competition.images import Pixels
from folds.frame import Frame
from inference.ensemble import Ensemble
from inference.stream import stream


class Red(nn.Module):
    """Car is where the photograph is red."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return (pixels[:, :1].float() - 128) / 4


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Seven photographs of different sizes; the n-th is red in its left n tenths."""
    made = []
    for number in range(7):
        image = np.zeros((40 + number, 60, 3), dtype=np.uint8)
        image[:, : 6 * number, 2] = 255
        path = tmp_path / f"car_{number:02d}.png"
        cv2.imwrite(str(path), image)
        made.append(photo_at(path))
    return made


def ensemble(network: nn.Module, frame: Frame | None = None) -> Ensemble:
    return Ensemble(
        [network], frame or Frame(32, 64, "resize"), ["identity"], device=torch.device("cpu"), precision="fp32"
    )


def measure(photo: Photo, levels: Pixels) -> tuple[str, tuple[int, ...], int]:
    return photo.img, levels.shape, int((levels >= 128)[20].sum())


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_results_come_in_order_at_full_size(photos: list[Photo], batch_size: int) -> None:
    network = Red()
    results = list(stream(photos, [ensemble(network)], measure, batch_size=batch_size, readers=3))
    assert [img for img, _, _ in results] == [photo.img for photo in photos]
    assert [shape for _, shape, _ in results] == [(40 + number, 60) for number in range(7)]
    assert [width for _, _, width in results] == pytest.approx([6 * number for number in range(7)], abs=1)
    assert sum(network.batches) == 7, "every photograph goes through a network once, the last batch included"


def test_frames_are_averaged(photos: list[Photo]) -> None:
    groups = [ensemble(Red()), ensemble(Red(), Frame(64, 64, "pad"))]
    results = list(stream(photos, groups, measure, batch_size=2, readers=2))
    assert [width for _, _, width in results] == pytest.approx([6 * number for number in range(7)], abs=1)


def test_a_damaged_photograph_is_named(photos: list[Photo]) -> None:
    photos[4].path.write_bytes(b"not an image")
    with pytest.raises(Failure, match="car_04"):
        list(stream(photos, [ensemble(Red())], measure, batch_size=2, readers=2))


def test_an_error_while_finishing_is_raised(photos: list[Photo]) -> None:
    def fail(photo: Photo, levels: Pixels) -> None:
        raise Failure(f"no room for {photo.img}")

    with pytest.raises(Failure, match="no room for car_00"):
        list(stream(photos, [ensemble(Red())], fail, batch_size=2, readers=2))


def test_no_photographs_give_no_results() -> None:
    assert list(stream([], [ensemble(Red())], measure, batch_size=2, readers=2)) == []
