"""Photos in, results out."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from competition import rle
from competition.command import Failure
from competition.data_folder import Photo, photo_at
from competition.images import Pixels, shape_of
from competition.rle import Spans
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine import host_masks
from inference.engine.device_masks import BatchAnswer
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Answer
from inference.engine.stream import on_host, spans_of_batch, stream_answers, stream_levels, stream_spans

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


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


def ensemble(network: nn.Module, frame: Frame | None = None, device: str = "cpu") -> Ensemble:
    return Ensemble(
        [network], frame or Frame(32, 64, "resize"), ["identity"], device=torch.device(device), precision="fp32"
    )


def measure(photo: Photo, levels: Pixels) -> tuple[str, tuple[int, ...], int]:
    return photo.img, levels.shape, int((levels >= 128)[20].sum())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_results_come_in_order_at_full_size(photos: list[Photo], batch_size: int, device: str) -> None:
    group = ensemble(Red(), device=device)
    results = list(stream_levels(photos, [group], measure, batch_size=batch_size, readers=3))
    assert [img for img, _, _ in results] == [photo.img for photo in photos]
    assert [shape for _, shape, _ in results] == [(40 + number, 60) for number in range(7)]
    assert [width for _, _, width in results] == pytest.approx([6 * number for number in range(7)], abs=1)
    (network,) = group.networks
    assert isinstance(network, Red)
    assert sum(network.batches) == 7, "every photo goes through a network once, the last batch included"


def test_frames_are_averaged(photos: list[Photo]) -> None:
    groups = [ensemble(Red()), ensemble(Red(), Frame(64, 64, "pad"))]
    results = list(stream_levels(photos, groups, measure, batch_size=2, readers=2))
    assert [width for _, _, width in results] == pytest.approx([6 * number for number in range(7)], abs=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("frames", [[Frame(32, 64, "resize")], [Frame(32, 64, "resize"), Frame(64, 64, "pad")]])
def test_runs_are_those_of_the_levels(photos: list[Photo], frames: list[Frame], device: str) -> None:
    groups = [ensemble(Red(), frame, device) for frame in frames]

    def encode(photo: Photo, spans: Spans) -> tuple[str, str]:
        return photo.img, rle.to_text(spans)

    def encode_levels(photo: Photo, levels: Pixels) -> tuple[str, str]:
        return photo.img, rle.encode(levels >= 100)

    found = list(stream_spans(photos, groups, encode, level=100, batch_size=3, readers=2))
    assert found == list(stream_levels(photos, groups, encode_levels, batch_size=3, readers=2))
    assert sum(bool(code) for _, code in found) == 6, "all but the first have some red"


@pytest.mark.parametrize("device", DEVICES)
def test_answers_come_with_their_components(photos: list[Photo], device: str) -> None:
    frames = [Frame(32, 64, "resize"), Frame(64, 64, "pad")]
    networks = [[Red(), Red()], [Red()]]
    views = ["identity", "hflip", "vflip"]
    groups = [
        Ensemble(each, frame, views, device=torch.device(device), precision="fp32")  # type: ignore[arg-type]
        for each, frame in zip(networks, frames, strict=True)
    ]

    def compare(photo: Photo, answers: Sequence[Answer]) -> tuple[str, list[float]]:
        assert [answer.weight for answer in answers] == [2, 1]
        assert [np.shape(answer.components) for answer in answers] == [(6, 32, 64), (3, 64, 64)]
        # A red square is one from all sides, so that every component says what the mean says.
        return photo.img, [np.abs(answer.components - answer.levels.astype(int)).max() for answer in answers]

    found = list(stream_answers(photos, groups, compare, batch_size=3, readers=2, components=True))
    assert found == [(photo.img, [pytest.approx(0, abs=1)] * 2) for photo in photos]


def test_a_batch_has_the_same_runs_on_the_device(photos: list[Photo]) -> None:
    """What a GPU is told to do for a batch of several sizes, against what the host's threads do for each."""
    random = torch.Generator().manual_seed(3)
    frames = [Frame(32, 64, "resize"), Frame(64, 64, "pad")]
    answers = [
        BatchAnswer(to_levels(torch.rand(25, 1, frame.height, frame.width, generator=random)), frame, count)
        for frame, count in zip(frames, (1, 3), strict=True)
    ]
    shapes = [shape_of(photo.path) for photo in photos]
    shapes += [shapes[2]] * 18  # more than are enlarged together
    found = spans_of_batch(shapes, answers, 128)
    said = zip(*map(on_host, answers), strict=True)
    for spans, each, shape in zip(found, said, shapes, strict=True):
        assert spans.tolist() == host_masks.spans_at(host_masks.full_size(each, shape), 128).tolist()
        assert len(spans) > 100


def test_a_damaged_photo_is_named(photos: list[Photo]) -> None:
    photos[4].path.write_bytes(b"not an image")
    with pytest.raises(Failure, match="car_04"):
        list(stream_levels(photos, [ensemble(Red())], measure, batch_size=2, readers=2))


def test_an_error_while_finishing_is_raised(photos: list[Photo]) -> None:
    def fail(photo: Photo, levels: Pixels) -> None:
        raise Failure(f"no room for {photo.img}")

    with pytest.raises(Failure, match="no room for car_00"):
        list(stream_levels(photos, [ensemble(Red())], fail, batch_size=2, readers=2))


def test_no_photos_give_no_results() -> None:
    assert list(stream_levels([], [ensemble(Red())], measure, batch_size=2, readers=2)) == []
