import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_car
from PIL import Image

from competition.adopt import __main__ as adopt
from competition.adopt import writing
from competition.adopt.naming import cars_rule, names_of
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.settings.schema import Data

ORIENTATION = 274
STORED = dict(
    zip(
        range(2, 9),
        [
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_90,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_270,
        ],
        strict=True,
    )
)
Adopt = Callable[..., None]


def write_phone(root: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Write two folders of photos with EXIF orientations 1 to 8 and their masks of 0 and 20.

    Yields the name of each photo in the data folder, and the photo and its mask as they are displayed.
    """
    for number in range(8):
        photo, mask = tiny_car(number)
        car, orientation = ("Red Kia", "blue bmw")[number // 4], number + 1
        image = Image.fromarray(photo)
        stored = image.transpose(STORED[orientation]) if orientation in STORED else image
        if number % 4 == 3:
            stored.putalpha(77)
        suffix = ".PNG" if number % 4 == 3 else ".JPG"
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        (root / "Photos" / car).mkdir(parents=True, exist_ok=True)
        stored.save(root / "Photos" / car / f"IMG {2041 + number}{suffix}", exif=exif, quality=100, subsampling=0)
        (root / "masks" / car.lower()).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask * np.uint8(20)).save(root / "masks" / car.lower() / f"img_{2041 + number}_Mask.png")
        yield f"{car}/IMG {2041 + number}{suffix.lower()}", photo, mask


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """A folder with Photos/ and masks/ of two cars."""
    list(write_phone(tmp_path))
    return tmp_path


@pytest.fixture
def run(phone: Path) -> Adopt:
    """Adopt the two folders into mine/, with further options."""

    def run_with(*options: str, images: str = "Photos", masks: str = "masks") -> None:
        places = ["--images", str(phone / images), "--masks", str(phone / masks), "--data", str(phone / "mine")]
        adopt.main([*places, *options])

    return run_with


def test_photos_of_a_phone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """EXIF 1 to 8, spaces and capitals, alpha, masks of 0 and 20: photos and masks are as a person sees them."""
    expected = {name: (photo, mask) for name, photo, mask in write_phone(tmp_path)}
    (tmp_path / "Photos" / "Red Kia" / "MVI_1.MOV").write_bytes(b"x")
    shutil.copy(tmp_path / "Photos" / "Red Kia" / "IMG 2041.JPG", tmp_path / "Photos" / "Red Kia" / "IMG 9.JPG")
    folders = ["--images", str(tmp_path / "Photos"), "--masks", str(tmp_path / "masks")]
    adopt.main([*folders, "--data", str(tmp_path / "mine")])

    data = DataFolder(tmp_path / "mine", Data(cars="folder"))
    assert {photo.img for photo in data.train} == set(expected)
    assert {photo.car for photo in data.train} == {"Red Kia", "blue bmw"}
    for photo in data.train:
        pixels, mask = expected[photo.img]
        assert np.array_equal(data.truth(photo), mask)
        assert np.abs(photo.read().astype(int) - pixels).mean() < 3
        assert photo.path.is_symlink()
    printed = capsys.readouterr().out
    assert "pairs     8 of a photo and its mask, such as " in printed
    assert "values    0/20 in 8 files, 20 is car\n" in printed
    assert "no mask   1, left out: Red Kia/IMG 9.JPG" in printed
    assert f"{data.root} is in order: 8 training photos of 2 cars with masks, 0 test photos" in printed
    assert f"next: make train DATA={data.root} PRESET=cpu RUN=mine SET=data.cars=folder\n" in printed
    assert Image.open(data.root / "check.png").format == "PNG"
    assert (data.root / "adopted.csv").read_text().splitlines()[1] == (
        f"train,Red Kia/IMG 2041.jpg,{tmp_path}/Photos/Red Kia/IMG 2041.JPG,"
        f"{tmp_path}/masks/red kia/img_2041_Mask.png,displayed"
    )


def test_the_same_again_does_nothing(phone: Path, run: Adopt, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    before = (phone / "mine" / "train_masks" / "Red Kia" / "IMG 2041_mask.png").stat().st_ino
    run()
    assert "mine: already there, adopted from the same files" in capsys.readouterr().out
    assert (phone / "mine" / "train_masks" / "Red Kia" / "IMG 2041_mask.png").stat().st_ino == before
    changed = phone / "masks" / "red kia" / "img_2041_Mask.png"
    os.utime(changed, (1, 1))
    with pytest.raises(
        Failure, match=r"img_2041_Mask.png has changed since .*mine was adopted; remove .*mine and adopt"
    ):
        run()
    changed.unlink()
    with pytest.raises(
        Failure, match=r"mine exists and was adopted from other files .*; name another DATA, or remove"
    ):
        run()


def test_another_folder_is_not_touched(phone: Path, run: Adopt) -> None:
    (phone / "mine").mkdir()
    with pytest.raises(
        Failure, match=r"mine exists and was not made by `make adopt`; name another DATA, or remove it"
    ):
        run()
    assert not list((phone / "mine").iterdir())


def test_an_interrupted_adoption_resumes(
    phone: Path, run: Adopt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    write = writing._write_mask

    def stop(part: Path, photo: writing.Adopted, masks: writing.Masks) -> None:
        if len(written) >= 3:
            raise KeyboardInterrupt
        write(part, photo, masks)
        written.append(photo.img)

    monkeypatch.setattr(writing, "_write_mask", stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (phone / "mine").exists()
    [first, *_] = sorted((phone / "mine.part").rglob("*_mask.png"))
    inode = first.stat().st_ino
    monkeypatch.setattr(writing, "_write_mask", write)
    run()
    assert not (phone / "mine.part").exists()
    assert "the other masks were written by an earlier `make adopt`" in capsys.readouterr().out
    assert len(DataFolder(phone / "mine", Data(cars="folder")).train) == 8
    assert (phone / "mine" / first.relative_to(phone / "mine.part")).stat().st_ino == inode


def test_photos_are_copied_where_links_are_impossible(
    phone: Path, run: Adopt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("links are impossible")

    monkeypatch.setattr(Path, "symlink_to", fail)
    run()
    assert "mine: 8 photos copied, because links are impossible there" in capsys.readouterr().out
    assert (phone / "mine" / "train" / "Red Kia" / "IMG 2041.jpg").is_file()


def test_test_photos_and_settings(phone: Path, run: Adopt, capsys: pytest.CaptureFixture[str]) -> None:
    run("--test", str(phone / "Photos" / "blue bmw"), "--set", "data.cars=photo")
    data = DataFolder(phone / "mine", Data(cars="photo"))
    assert [photo.img for photo in data.test] == [f"IMG {2045 + n}.{'png' if n == 3 else 'jpg'}" for n in range(4)]
    assert {photo.car for photo in data.train} == {f"IMG {2041 + n}" for n in range(8)}
    assert "PRESET=cpu RUN=mine SET=data.cars=photo\n" in capsys.readouterr().out


def test_photos_and_masks_in_one_folder(tmp_path: Path) -> None:
    for number in range(2):
        photo, mask = tiny_car(number)
        Image.fromarray(photo).save(tmp_path / f"{number}.png")
        Image.fromarray(mask * 255).save(tmp_path / f"{number}_mask.png")
    adopt.main(["--images", str(tmp_path), "--data", str(tmp_path / "mine")])
    assert [photo.img for photo in DataFolder(tmp_path / "mine").train] == ["0.png", "1.png"]
    adopt.main(["--images", str(tmp_path), "--data", str(tmp_path / "mine")])  # does not adopt what it wrote


def test_folders_behind_links_are_read(phone: Path, run: Adopt) -> None:
    (phone / "Photos" / "blue bmw").rename(phone / "elsewhere")
    (phone / "Photos" / "blue bmw").symlink_to(phone / "elsewhere")
    (phone / "elsewhere" / "loop").symlink_to(phone / "Photos")
    run()
    assert len(DataFolder(phone / "mine", Data(cars="folder")).train) == 8


@pytest.mark.parametrize(
    ("images", "message"), [("Photo", "no folder .*Photo"), ("x.zip", "x.zip is a file, not a folder")]
)
def test_a_source_that_is_no_folder(phone: Path, run: Adopt, images: str, message: str) -> None:
    (phone / "x.zip").write_bytes(b"")
    with pytest.raises(Failure, match=message):
        run(images=images)


def test_nothing_pairs(phone: Path, run: Adopt) -> None:
    for path in sorted((phone / "masks").rglob("*.png")):
        path.rename(path.with_stem(f"x{path.stem}"))
    with pytest.raises(
        Failure, match=r"no mask has the name of a photo; 8 photos in .*Photos \(.*\), 8 masks in .*masks"
    ):
        run()
    assert not (phone / "mine").exists()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((32, 48), np.uint8), "it has the photo's proportions: scale masks or photos first"),
        (np.zeros((64, 90), np.uint8), "a mask must have the size of its photo"),
        (np.arange(64 * 96, dtype=np.uint8).reshape(64, 96) // 64, "this project segments car or not"),
    ],
)
def test_masks_that_do_not_fit_are_named(
    phone: Path, run: Adopt, mask: np.ndarray, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(mask).save(phone / "masks" / "red kia" / "img_2041_Mask.png")
    with pytest.raises(Failure, match="1 problem, listed above; nothing was adopted"):
        run()
    [line] = [line for line in capsys.readouterr().out.splitlines() if message in line]
    assert line.startswith(f"{phone}/masks/red kia/img_2041_Mask.png ")
    assert not list(phone.glob("mine*"))


@pytest.mark.parametrize(
    ("paths", "by_folder", "names"),
    [
        (["IMG 1.JPG", "b.png"], False, ["IMG 1.jpg", "b.png"]),
        (["red/1.jpg", "blue/1.jpg", "blue/2.jpg"], False, ["red-1.jpg", "blue-1.jpg", "2.jpg"]),
        (["images/red/1.jpg", "images/2021/blue/1.jpg"], True, ["red/1.jpg", "2021-blue/1.jpg"]),
        (["x (1).jpg", "a,b.jpg", "c\u2028d.jpg", ".hid.jpg"], False, ["x 1.jpg", "a-b.jpg", "c-d.jpg", "hid.jpg"]),
        ([os.fsdecode(b"K\xe4fer.jpg"), "Ka\u0308fer 2.jpg"], False, ["Käfer.jpg", "Käfer 2.jpg"]),
        (["a.jpg", "A.png", "a,.jpg"], False, ["a.jpg", "A-2.png", "a-3.jpg"]),
    ],
)
def test_names(paths: list[str], by_folder: bool, names: list[str]) -> None:
    assert names_of([Path(path) for path in paths], by_folder=by_folder) == names


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        (["IMG 1.jpg", "IMG 2.jpg"], "auto"),
        (["images/red/1.jpg", "images/blue/1.jpg"], "folder"),
        (["train/abc_01.jpg", "val/abc_02.jpg"], "auto"),
        (["red/front_01.jpg", "blue/front_01.jpg"], "folder"),
    ],
)
def test_what_shows_one_car(paths: list[str], rule: str) -> None:
    assert cars_rule([Path(path) for path in paths]) == rule
