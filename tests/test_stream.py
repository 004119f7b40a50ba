"""Photos in, results out, in order."""

import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from competition import rle
from competition.command import Failure
from competition.data_folder import photo_at
from competition.images import Pixels
from competition.photo import Photo
from competition.settings.schema import Inference
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine import host_masks
from inference.engine.device_masks import BatchPrediction
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Prediction
from inference.engine.stream import map_in_threads, map_masks, masks_of_batch, on_host, predict_photos

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
TWO = Inference(batch_size=2, readers=2)
RESIZE, PAD = Frame(32, 64, "resize"), Frame(64, 64, "pad")


class Red(nn.Module):
    """Car is where the photo is red."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return (pixels[:, :1].float() - 128) / 4


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Seven photos of different sizes; the n-th is red in its left n tenths."""
    made = []
    for number in range(7):
        image = np.zeros((40 + number, 60, 3), dtype=np.uint8)
        image[:, : 6 * number, 2] = 255
        path = tmp_path / f"car_{number:02d}.png"
        cv2.imwrite(str(path), image)
        made.append(photo_at(path))
    return made


def ensemble(network: nn.Module, frame: Frame = RESIZE, device: str = "cpu") -> Ensemble:
    return Ensemble([network], frame, ["identity"], device=torch.device(device), precision="fp32")


def levels_of(photo: Photo, predictions: Sequence[Prediction]) -> Pixels:
    return host_masks.full_size(predictions, photo.shape)


def measure(photo: Photo, predictions: Sequence[Prediction]) -> tuple[str, tuple[int, ...], int]:
    """The name, the shape, and the number of car pixels in row 20."""
    levels = levels_of(photo, predictions)
    return photo.img, levels.shape, int((levels >= 128)[20].sum())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("frames", [[RESIZE], [RESIZE, PAD]])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_results_come_in_order_at_full_size(
    photos: list[Photo], batch_size: int, frames: list[Frame], device: str
) -> None:
    ensembles = [ensemble(Red(), frame, device) for frame in frames]
    how = Inference(batch_size=batch_size, readers=3)
    results = list(map_in_threads(measure, predict_photos(photos, ensembles, how), how))
    assert [img for img, _, _ in results] == [photo.img for photo in photos]
    assert [shape for _, shape, _ in results] == [(40 + number, 60) for number in range(7)]
    assert [width for _, _, width in results] == pytest.approx([6 * number for number in range(7)], abs=1)
    for each in ensembles:
        (network,) = each.networks
        assert isinstance(network, Red)
        assert sum(network.batches) == 7, "every photo goes through a network once"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("frames", [[RESIZE], [RESIZE, PAD]])
def test_masks_equal_those_of_the_thresholded_levels(photos: list[Photo], frames: list[Frame], device: str) -> None:
    ensembles = [ensemble(Red(), frame, device) for frame in frames]
    how = Inference(batch_size=3)
    found = list(map_masks(lambda photo, mask: (photo.img, mask), photos, ensembles, how, level=100))
    predicted = [(photo, levels_of(photo, each)) for photo, each in predict_photos(photos, ensembles, how)]
    codes = [(img, rle.to_text(mask.spans)) for img, mask in found]
    assert codes == [(photo.img, rle.encode(levels >= 100)) for photo, levels in predicted]
    assert sum(bool(code) for _, code in codes) == 6, "all but the first have some red"
    certainties = [mask.expected_dice for _, mask in found]
    assert certainties == [host_masks.threshold_at(levels, 100).expected_dice for _, levels in predicted]
    assert certainties[0] == 1.0 > min(certainties)


@pytest.mark.parametrize("device", DEVICES)
def test_predictions_come_with_their_components(photos: list[Photo], device: str) -> None:
    tta = ["identity", "hflip", "vflip"]
    ensembles = [
        Ensemble(networks, frame, tta, device=torch.device(device), precision="fp32")
        for networks, frame in (([Red(), Red()], RESIZE), ([Red()], PAD))
    ]

    def compare(photo: Photo, predictions: Sequence[Prediction]) -> tuple[str, list[float]]:
        assert [each.weight for each in predictions] == [2, 1]
        assert [np.shape(each.components) for each in predictions] == [(6, 32, 64), (3, 64, 64)]
        # Red pixels stay red in every flip, so that every component equals the mean.
        return photo.img, [np.abs(each.components - each.levels.astype(int)).max() for each in predictions]

    predicted = predict_photos(photos, ensembles, Inference(batch_size=3), components=True)
    found = [compare(*each) for each in predicted]
    assert found == [(photo.img, [pytest.approx(0, abs=1)] * 2) for photo in photos]


def test_a_gpu_batch_has_the_masks_that_the_host_finds(photos: list[Photo]) -> None:
    """The function that a GPU runs for a batch of several sizes, compared with the host's for each photo."""
    random = torch.Generator().manual_seed(3)
    predictions = [
        BatchPrediction(to_levels(torch.rand(25, 1, frame.height, frame.width, generator=random)), frame, weight)
        for frame, weight in ((RESIZE, 1), (PAD, 3))
    ]
    shapes = [photo.shape for photo in photos]
    shapes += [shapes[2]] * 18  # more than are enlarged together
    found = masks_of_batch(shapes, predictions, 128)
    for mask, each, shape in zip(found, zip(*map(on_host, predictions), strict=True), shapes, strict=True):
        by_host = host_masks.threshold_at(host_masks.full_size(each, shape), 128)
        assert mask.spans.tolist() == by_host.spans.tolist()
        assert mask.expected_dice == by_host.expected_dice
        assert len(mask.spans) > 100


def test_a_damaged_photo_is_named(photos: list[Photo]) -> None:
    photos[4].path.write_bytes(b"not an image")
    with pytest.raises(Failure, match="car_04"):
        list(predict_photos(photos, [ensemble(Red())], TWO))


def test_an_error_in_the_work_is_raised_and_stops_all_threads(photos: list[Photo]) -> None:
    def fail(photo: Photo, _predictions: Sequence[Prediction]) -> None:
        raise Failure(f"no room for {photo.img}")

    before = threading.active_count()
    network = Red()
    with pytest.raises(Failure, match="no room for car_00"):
        list(map_in_threads(fail, predict_photos(photos * 20, [ensemble(network)], TWO), TWO))
    assert threading.active_count() == before
    assert sum(network.batches) < 20


def test_only_a_few_batches_are_predicted_ahead(photos: list[Photo]) -> None:
    group = ensemble(Red())
    results = map_in_threads(measure, predict_photos(photos * 20, [group], TWO), TWO)
    next(results)
    (network,) = group.networks
    assert isinstance(network, Red)
    assert len(network.batches) <= 4
    assert sum(1 for _ in results) == 7 * 20 - 1
    assert not list(predict_photos([], [group], TWO))
