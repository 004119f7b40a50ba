"""Photos from Python: paths, pictures of PIL and arrays, with a run and without torch."""

from pathlib import Path

import numpy as np
import pytest
from brightness import Brightness
from conftest import TINY_SHAPE, tiny_car
from PIL import Image
from trained_run import Trained

from competition.command import Failure
from competition.exif import TAG
from competition.images import Pixels
from competition.photo import Photo
from folds.frame import Frame
from inference import segmenter
from inference.cutouts.segmenter import Segmenter
from inference.engine.host_masks import level_of

CAR, _ = tiny_car(seed=1)


def save(path: Path, pixels: Pixels, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_a_path_a_picture_and_an_array_give_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "car.png", CAR)
    segment = Segmenter(Brightness())
    expected = segment(CAR)
    assert (expected.shape, expected.dtype) == (TINY_SHAPE, np.float32)
    for image in (path, str(path), Image.open(path), Image.fromarray(CAR).convert("RGBA")):
        assert np.array_equal(segment(image), expected)


def test_exif_orientation_is_applied_to_files_and_pictures(tmp_path: Path) -> None:
    path = save(tmp_path / "phone.jpg", CAR, orientation=6)
    segment = Segmenter(Brightness())
    for image in (path, Image.open(path)):
        assert segment(image).shape == TINY_SHAPE[::-1]
        assert segment.cutout(image).shape == (*TINY_SHAPE[::-1], 4)


def test_a_list_gives_a_list_in_batches(tmp_path: Path) -> None:
    model = Brightness()
    segment = Segmenter(model, batch_size=2)
    images = [save(tmp_path / "a.png", CAR), CAR[::-1], Image.fromarray(CAR[:, ::-1])]
    found = segment(images)
    assert model.calls == [2, 1]
    assert all(np.array_equal(each, segment(image)) for each, image in zip(found, images, strict=True))
    assert segment([]) == []
    assert [each.shape for each in segment.cutout(images[:1], "white")] == [(*TINY_SHAPE, 3)]


def test_the_threshold_gives_the_mask_of_the_pipeline() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    for threshold in (*(level / 255 for level in range(1, 255)), *(part / 1000 for part in range(1, 1000))):
        segment = Segmenter(Brightness(Frame(32, 256, "pad"), threshold))
        mask = segment(ramp) >= segment.threshold
        assert np.array_equal(mask[0], np.arange(256) >= level_of(threshold)), threshold


def test_gray_pictures_of_16_bits_are_scaled() -> None:
    gray = np.full(TINY_SHAPE, 200 * 257, np.uint16)
    assert Segmenter(Brightness())(Image.fromarray(gray)).max() == np.float32(200 / 255)


@pytest.mark.parametrize("image", [CAR[..., 0], CAR / 255, np.dstack([CAR, CAR]), None, 3])
def test_what_is_no_photo_is_refused(image: object) -> None:
    with pytest.raises(Failure, match="a photo is a path, a picture of PIL, or an RGB array"):
        Segmenter(Brightness())(image)  # type: ignore[call-overload]


def test_an_array_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Failure, match=r"the image is 96 x 64, larger than the frame of 48 x 32"):
        Segmenter(Brightness(Frame(32, 48, "pad")))(CAR)


def test_a_run_is_loaded(trained_once: Trained) -> None:
    photo = sorted((trained_once.data / "test").iterdir())[0]
    both = segmenter.Segmenter.load(trained_once.run.root, device="cpu")
    one = segmenter.Segmenter.load(str(trained_once.run.root), folds=[1], settings=["inference.tta=[identity]"])
    assert both.threshold == one.threshold == 0.5
    assert both(photo).shape == Photo("", "", 1, photo).shape
    assert not np.array_equal(both(photo), one(photo))
    with pytest.raises(Failure, match="has no fold 7; its folds are 0, 1"):
        segmenter.Segmenter.load(trained_once.run.root, folds=[7])
    with pytest.raises(Failure, match="no run nowhere"):
        segmenter.Segmenter.load("nowhere")
