import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CARS, TEST_CARS, TINY_SHAPE, save_mask, tiny_car, write_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from competition import rle
from competition.check import problems
from competition.command import Failure, one_line
from competition.data_folder import DataFolder
from competition.mask_table import read_table
from competition.settings.schema import Data
from submissions.submission_file import write

FIRST = f"{sorted(CARS)[0]}_01"  # the name of the first photo


def masks_of(data: DataFolder) -> list[list[list[int]]]:
    return [data.truth(photo).tolist() for photo in data.train]


def test_the_folder_as_tables(tiny_data: Path) -> None:
    data = DataFolder(tiny_data)
    assert [photo.img for photo in data.train] == sorted(f"{car}_{view}.jpg" for car in CARS for view in ("01", "09"))
    assert {photo.car for photo in data.test} == set(TEST_CARS)
    assert [photo.view for photo in data.train[:2]] == [1, 9]
    assert len(data.submission_names) == 4
    assert data.metadata.loc[CARS[1], "make"] == "BMW"
    data.require_masks(data.train)


def test_masks_as_gif_as_png_and_in_csv_only_are_the_same(own_data: Path) -> None:
    expected = masks_of(DataFolder(own_data))
    (own_data / "train_masks.csv").rename(own_data / "aside.csv")
    assert masks_of(DataFolder(own_data)) == expected
    for gif in (own_data / "train_masks").iterdir():
        with Image.open(gif) as image:
            Image.fromarray(255 * np.asarray(image)).save(gif.with_name(gif.name.replace("_mask.gif", ".PNG")), "PNG")
        gif.unlink()
    assert masks_of(DataFolder(own_data)) == expected
    shutil.rmtree(own_data / "train_masks")
    (own_data / "aside.csv").rename(own_data / "train_masks.csv")
    assert masks_of(DataFolder(own_data)) == expected
    DataFolder(own_data).require_masks(DataFolder(own_data).train)


def test_hq_photos(own_data: Path) -> None:
    shutil.copytree(own_data / "train", own_data / "train_hq")
    assert DataFolder(own_data).train[0].path.parent.name == "train"
    assert DataFolder(own_data, Data(hq=True)).train[0].path.parent.name == "train_hq"
    with pytest.raises(
        Failure, match=r"has no folder test_hq, for hq photos \(data.hq=true\); `make data HQ=1 DATA=.*` fetches"
    ):
        _ = DataFolder(own_data, Data(hq=True)).test
    shutil.rmtree(own_data / "train")
    assert DataFolder(own_data).train[0].path.parent.name == "train_hq"


def test_sizes_may_be_mixed(own_data: Path) -> None:
    photo, mask = tiny_car(seed=1)
    Image.fromarray(photo[:40, :50]).save(own_data / "train" / f"{FIRST}.jpg")
    save_mask(own_data / "train_masks" / f"{FIRST}_mask.gif", mask[:40, :50])
    (own_data / "train_masks.csv").unlink()
    data = DataFolder(own_data)
    assert [data.truth(photo).shape for photo in data.train[:2]] == [(40, 50), TINY_SHAPE]


def test_hidden_files_of_macos_are_ignored(own_data: Path) -> None:
    for folder in ("train", "test", "train_masks"):
        for path in list((own_data / folder).iterdir()):
            path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    data = DataFolder(own_data)
    assert (len(data.train), len(data.test)) == (10, 4)
    data.require_masks(data.train)


def test_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    reason = "no data folder .*nowhere; name one with DATA=.*make data.*make synthetic.*DATA=data/synthetic"
    with pytest.raises(Failure, match=reason):
        DataFolder(folder)
    folder.mkdir()
    (folder / ".download.lock").touch()  # what a download without a token leaves
    with pytest.raises(Failure, match=reason):
        DataFolder(folder)


def test_no_photos(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    with pytest.raises(Failure, match="has no folder train or train_hq"):
        _ = DataFolder(tmp_path).train
    with pytest.raises(Failure, match="test holds no photos"):
        _ = DataFolder(tmp_path).test


def test_only_photos_are_required(own_data: Path) -> None:
    for name in ("sample_submission.csv", "metadata.csv", "train_masks.csv", "solution.csv"):
        (own_data / name).unlink()
    data = DataFolder(own_data)
    assert data.submission_names == [photo.img for photo in data.test]
    assert data.metadata.empty
    assert "make" in data.metadata.columns


def test_a_photo_without_a_mask_is_named(own_data: Path) -> None:
    (own_data / "train_masks.csv").unlink()
    (own_data / "train_masks" / f"{FIRST}_mask.gif").unlink()
    data = DataFolder(own_data)
    for look in (lambda: data.truth_spans(data.train[0]), lambda: data.require_masks(data.train)):
        with pytest.raises(Failure, match=f"{FIRST}.jpg has no mask: neither .*{FIRST}_mask.gif nor a row in"):
            look()


def test_masks_in_a_zip_file_are_mentioned(own_data: Path) -> None:
    (own_data / "train_masks.csv").unlink()
    shutil.rmtree(own_data / "train_masks")
    (own_data / "train_masks.zip").touch()
    data = DataFolder(own_data)
    with pytest.raises(Failure, match=r"remove the photo; train_masks.zip is there: `make data FROM="):
        data.require_masks(data.train)


def test_a_mask_of_another_size_is_named_with_both_sizes(own_data: Path) -> None:
    save_mask(own_data / "train_masks" / f"{FIRST}_mask.gif", np.zeros((64, 95), dtype=np.uint8))
    data = DataFolder(own_data)
    for look in (lambda: data.truth(data.train[0]), lambda: data.require_masks(data.train)):
        with pytest.raises(Failure, match=f"{FIRST}_mask.gif is 95 x 64, but .*{FIRST}.jpg is 96 x 64") as failure:
            look()
        assert str(failure.value).endswith(f"(`make check DATA={own_data}` lists all problems)")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a.jpg,\nb.jpg,\nb.jpg,\n", r"names b\.jpg twice"),
        ("", r"sample_submission\.csv has no rows; .* or remove it"),
    ],
)
def test_a_bad_sample_is_rejected(own_data: Path, rows: str, reason: str) -> None:
    (own_data / "sample_submission.csv").write_text("img,rle_mask\n" + rows)
    with pytest.raises(Failure, match=reason):
        _ = DataFolder(own_data).submission_names


def test_the_order_of_the_sample_is_kept(own_data: Path) -> None:
    (own_data / "sample_submission.csv").write_text("img,rle_mask\nb.jpg,\na.jpg,\nc.jpg,\n")
    assert DataFolder(own_data).submission_names == ["b.jpg", "a.jpg", "c.jpg"]


def test_metadata(own_data: Path) -> None:
    """Each cell is text, and a car has one row."""
    for text, reason in (("car,make\n", "has no column `id`"), ("", "metadata.csv is empty")):
        (own_data / "metadata.csv").write_text(text)
        with pytest.raises(Failure, match=reason):
            _ = DataFolder(own_data).metadata
    (own_data / "metadata.csv").write_text("id,year,make\n00012,2010,NA\n00012,2011,BMW\n")
    assert DataFolder(own_data).metadata.loc["00012"].tolist() == ["2010", "NA"]


def test_the_fingerprint_follows_names_and_sizes_of_the_training_photos(own_data: Path) -> None:
    before = DataFolder(own_data).fingerprint
    shutil.copytree(own_data, own_data.parent / "moved")
    assert DataFolder(own_data.parent / "moved").fingerprint == before
    (own_data / "test" / f"{TEST_CARS[0]}_01.jpg").unlink()
    (own_data / "metadata.csv").unlink()
    assert DataFolder(own_data).fingerprint == before
    photo = own_data / "train" / f"{FIRST}.jpg"
    photo.write_bytes(photo.read_bytes() + b"\n")
    assert DataFolder(own_data).fingerprint != before
    photo.unlink()
    assert DataFolder(own_data).fingerprint != before


def test_the_fingerprint_of_the_masks_follows_codes_and_mask_files(own_data: Path) -> None:
    table, mask = own_data / "train_masks.csv", own_data / "train_masks" / f"{FIRST}_mask.gif"
    text = table.read_text().rstrip()
    seen = [DataFolder(own_data).masks_fingerprint]
    assert DataFolder(own_data).masks_fingerprint == seen[0]
    for change in (
        lambda: table.write_text(text.rpartition(",")[0] + ",1 5\n"),
        table.unlink,
        lambda: save_mask(mask, np.zeros(TINY_SHAPE, dtype=np.uint8)),
        mask.unlink,
    ):
        change()
        seen.append(DataFolder(own_data).masks_fingerprint)
    assert len(set(seen)) == 5


def test_the_truth_is_the_mask(tiny_data: Path) -> None:
    data = DataFolder(tiny_data)
    for photo in data.train:
        mask = data.truth(photo)
        np.testing.assert_array_equal(mask, tiny_car(seed=100 * CARS.index(photo.car) + photo.view)[1])
        assert mask.dtype == np.uint8
        assert rle.area(data.truth_spans(photo)) == mask.sum() > 500


def test_two_masks_of_one_photo_stop_every_reader(own_data: Path) -> None:
    """Before, the PNG won without a word."""
    other = own_data / "train_masks" / f"{FIRST}_MASK.PNG"
    save_mask(other, np.zeros(TINY_SHAPE, dtype=np.uint8))
    data = DataFolder(own_data)
    for look in (lambda: data.truth_spans(data.train[0]), lambda: data.require_masks(data.train)):
        with pytest.raises(Failure, match=rf"capitals, .* \(1\): {FIRST}_MASK.PNG and {FIRST}_mask.gif; keep one"):
            look()
    assert [line for line in problems(data) if other.name in line] == data.listing("train_masks").problems


def test_masks_of_other_names_are_mentioned(own_data: Path) -> None:
    (own_data / "train_masks.csv").unlink()
    (own_data / "train_masks" / f"{FIRST}_mask.gif").rename(own_data / "train_masks" / f"{FIRST}_seg.gif")
    with pytest.raises(Failure, match=rf"{FIRST}.jpg has no mask: .*; 1 mask without a photo: {FIRST}_seg.gif \("):
        DataFolder(own_data).require_masks(DataFolder(own_data).train)


def test_names_match_whatever_their_unicode_form_and_case(own_data: Path) -> None:
    """NFD on the disk, as macOS stores it, and NFC in the tables, or the other way round."""
    nfc, nfd = "K\xe4fer_01", "Ka\u0308fer_01"
    for kind, name in (("train", f"{nfd}.JPG"), ("test", f"{nfd}.jpg")):
        next((own_data / kind).iterdir()).rename(own_data / kind / name)
    rows = {f"{nfc}.JPG": "1 7"}
    write_rows(own_data / "train_masks.csv", rows)
    write_rows(own_data / "sample_submission.csv", rows)
    (own_data / "metadata.csv").write_text("id,year,make,model,trim1,trim2\nK\xe4fer,1967,VW,,,\n", encoding="utf-8")
    data = DataFolder(own_data)
    photo = next(photo for photo in data.train if photo.car == "K\xe4fer")
    assert rle.to_text(data.truth_spans(photo)) == "1 7"
    assert data.submission_names == [photo.img] == [f"{nfc}.JPG"]
    assert data.metadata.loc[photo.car, "make"] == "VW"
    write_rows(own_data / "sample_submission.csv", {f"{nfd}.jpg": ""})
    assert DataFolder(own_data).submission_names == [f"{nfc}.jpg"]
    save_mask(own_data / "train_masks" / f"{nfc}_MASK.png", np.ones(TINY_SHAPE, dtype=np.uint8))
    assert data.mask_file(photo) is None
    mask = DataFolder(own_data).mask_file(photo)
    assert mask is not None
    assert mask.name == f"{nfc}_MASK.png"


@pytest.mark.parametrize(
    ("cars", "names", "expected"),
    [
        ("auto", ["IMG_01", "IMG_02", "IMG_2041"], ["IMG", "IMG", "IMG_2041"]),
        ("photo", ["IMG_01", "IMG_02"], ["IMG_01", "IMG_02"]),
        ("folder", ["audi/front", "audi/rear", "vw"], ["audi", "audi", "vw"]),
        ("before:-", ["audi-1-2", "audi-3-4"], ["audi", "audi"]),
    ],
)
def test_the_cars_follow_the_setting(tmp_path: Path, cars: str, names: list[str], expected: list[str]) -> None:
    photo, mask = tiny_car(seed=1)
    for name in names:
        for folder, end, pixels in (("train", ".jpg", photo), ("train_masks", "_mask.png", 255 * mask)):
            path = tmp_path / folder / f"{name}{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    data = DataFolder(tmp_path, Data(cars=cars))
    assert [photo.img for photo in data.train] == [f"{name}.jpg" for name in names]
    assert [photo.car for photo in data.train] == expected
    assert data.groups.cars == len(set(expected))
    data.require_masks(data.train)
    assert all(rle.area(data.truth_spans(photo)) == mask.sum() for photo in data.train)


NASTY = [
    *(
        "a",
        "B",
        "_01",
        "_16",
        "_17",
        "_mask",
        " (1)",
        " - Copy",
        " copy",
        "IMG_2041",
        " ",
        ".",
        "-",
        ",",
        '"',
        "'",
        ";",
    ),
    *(
        "\n",
        "\r",
        "\t",
        "\x1b",
        "\x85",
        "\u2028",
        "\xa0",
        "\u202e",
        "\xe4",
        "a\u0308",
        "\udce4",
        "\udcff",
        "\U0001f697",
    ),
    *("=1+1", "NA", "#", "%", "~", "*", "$(x)", "1e5"),
]
stems = st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("".join)
endings = st.sampled_from([".jpg", ".JPG", ".png", ".webp", ".gif", ".txt", ""])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.tuples(stems, endings), min_size=1, max_size=4, unique=True))
@example([('K\xe4fer, "rot"_01', ".jpg"), ("IMG_2041", ".jpg"), ("NA", ".png"), (" -x ", ".JPG")])
def test_any_name_is_read_correctly_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("names")
    for folder in ("train", "train_masks"):
        (root / folder).mkdir()
    for stem, ending in files:
        (root / "train" / f"{stem}{ending}").touch()
        (root / "train_masks" / f"{stem}_mask.png").touch()
    data = DataFolder(root)
    try:
        photos = data.train
        masks = [data.mask_file(photo) for photo in photos]
    except Failure as failure:
        line = one_line(failure)
        assert line.isprintable()
        assert str(root) in line
        return
    wanted = {f"{stem}{ending}" for stem, ending in files if ending not in (".txt", "") and not stem.startswith(".")}
    assert {photo.path.name for photo in photos} == wanted
    for photo, mask in zip(photos, masks, strict=True):
        assert mask is not None
        assert mask.name == f"{photo.path.name.rpartition('.')[0]}_mask.png"
    assert data.groups.photos == len(photos)
    write(root / "train_masks.csv", [(photo.img, "1 2") for photo in photos])
    assert list(read_table(root / "train_masks.csv")) == [photo.img for photo in photos]


def test_problems_name_the_command_that_lists_them(own_data: Path) -> None:
    for name in ("a (1).jpg", "a.jpg", "b.gif"):
        (own_data / "train" / name).write_bytes(b"")
    (own_data / "sample_submission.csv").write_text("img,rle_mask\nmissing_01.jpg,\n")
    with pytest.raises(Failure, match=rf" \(`make check DATA={own_data}` lists 1 more of this folder\)$"):
        _ = DataFolder(own_data).train
    with pytest.raises(Failure, match=rf"; `make check DATA={own_data} SET=data.cars=photo` lists them$"):
        _ = DataFolder(own_data, Data(cars="photo")).submission_photos
    (own_data / "test").rename(own_data / "test_hq")
    with pytest.raises(Failure, match=rf"; `make check DATA={own_data} HQ=1` lists them$"):
        _ = DataFolder(own_data, Data(hq=True)).submission_photos
