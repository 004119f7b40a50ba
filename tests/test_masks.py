"""The masks of a submission as PNG files: the same pixels, under Carvana's names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_records import make_environment, make_submission_record

from competition import rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import held
from competition.mask_file import read_mask
from competition.run.folder import RunFolder
from submissions import masks, submission_file

SHAPES = {"f00d_01.jpg": (10, 20), "f00d_02.jpg": (12, 31)}  # widths that are not multiples of 8 pixels, a byte


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder with two photos."""
    for folder in ("test", "train"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name, (height, width) in SHAPES.items():
            Image.new("RGB", (width, height)).save(tmp_path / "data" / folder / name)
    return DataFolder(tmp_path / "data")


def submission(folder: Path, codes: dict[str, str]) -> Path:
    submission_file.write(folder / "submission.csv.gz", codes.items())
    return folder / "submission.csv.gz"


def test_the_files_are_the_masks(tmp_path: Path, data: DataFolder) -> None:
    random = np.random.default_rng(1)
    shape, other = SHAPES.values()
    for first in (random.integers(0, 2, shape, dtype=np.uint8), np.zeros(shape, np.uint8)):
        expected = dict(zip(SHAPES, (first, random.integers(0, 2, other, dtype=np.uint8)), strict=True))
        file = submission(tmp_path, {name: rle.encode(mask) for name, mask in expected.items()})
        names = masks.write_masks(file, data, tmp_path / "masks")
        assert {path.name for path in (tmp_path / "masks").iterdir()} == names
        assert names == {"f00d_01_mask.png", "f00d_02_mask.png"}
        for name, mask in expected.items():
            path = tmp_path / "masks" / f"{Path(name).stem}_mask.png"
            np.testing.assert_array_equal(read_mask(path).labels, mask)
            with Image.open(path) as image:  # what a viewer shows: black and white, one bit per pixel
                assert image.mode == "1"
                np.testing.assert_array_equal(np.asarray(image), mask == 1)


def test_the_files_can_be_used_as_training_masks(tmp_path: Path, data: DataFolder) -> None:
    masks.write_masks(submission(tmp_path, {"f00d_02.jpg": "1 5 34 7"}), data, data.root / "train_masks")
    photo = next(photo for photo in data.train if photo.img == "f00d_02.jpg")
    assert rle.to_text(data.truth_spans(photo)) == "1 5 34 7"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../../f00d_01.jpg", r"line 3: \.\./\.\./f00d_01\.jpg is not a test photo"),
        ("f00d_02.jpg", r"line 3: f00d_02\.jpg is already in line 2; remove one row"),
    ],
)
def test_a_wrong_row_is_named_and_writes_no_file(tmp_path: Path, data: DataFolder, row: str, reason: str) -> None:
    submission_file.write(tmp_path / "submission.csv", [("f00d_02.jpg", "1 1"), (row, "1 2")])
    with pytest.raises(Failure, match=reason):
        masks.write_masks(tmp_path / "submission.csv", data, tmp_path / "masks")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["f00d_02_mask.png"]


def test_a_folder_for_each_car(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for car in ("audi", "bmw"):
        (tmp_path / "data" / "test" / car).mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(tmp_path / "data" / "test" / car / "front.jpg")
    (tmp_path / "settings.yaml").write_text("data: {cars: folder}")
    for names in (["audi/front.jpg", "bmw/front.jpg"], ["bmw/front.jpg"]):
        submission(tmp_path, dict.fromkeys(names, "1 3"))
        masks.main(["--run", f"{tmp_path}", "--data", f"{tmp_path / 'data'}"])
    assert read_mask(tmp_path / "masks" / "audi" / "front_mask.png").labels.sum() == 3
    assert capsys.readouterr().out.endswith("1 mask of other submissions, such as audi/front_mask.png\n")


def test_the_command_writes_beside_the_submission(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    submission(tmp_path, dict.fromkeys(SHAPES, "1 3")).rename(tmp_path / "blend.csv.gz")
    masks.main(["--file", f"{tmp_path / 'blend.csv.gz'}", "--data", f"{data.root}"])
    assert capsys.readouterr().out == f"2 masks in {tmp_path / 'blend_masks'}\n"
    submission(tmp_path, dict.fromkeys(SHAPES, "1 3"))
    masks.main(["--run", f"{tmp_path}", "--data", f"{data.root}"])
    assert capsys.readouterr().out == f"2 masks in {tmp_path / 'masks'}\n"
    submission(tmp_path, {"f00d_02.jpg": "1 3"})
    masks.main(["--run", f"{tmp_path}", "--data", f"{data.root}"])
    assert capsys.readouterr().out.splitlines() == [
        f"1 mask in {tmp_path / 'masks'}",
        f"note: {tmp_path / 'masks'} also has 1 mask of other submissions, such as f00d_01_mask.png",
    ]


def test_the_data_folder_is_taken_from_the_submission_record(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    submission(tmp_path, dict.fromkeys(SHAPES, "1 3"))
    run = RunFolder(tmp_path)
    make_environment(data=str(tmp_path / "trained on")).write(run.environment)
    with pytest.raises(Failure, match=r"no data folder .*trained on"):
        masks.main(["--run", f"{tmp_path}"])
    make_submission_record(data=str(data.root)).write(run.submission_record)
    masks.main(["--run", f"{tmp_path}"])
    assert capsys.readouterr().out == f"2 masks in {tmp_path / 'masks'}\n"


def test_a_second_command_is_rejected(tmp_path: Path, data: DataFolder) -> None:
    submission(tmp_path, {"f00d_01.jpg": "1 3"})
    with held(tmp_path / "masks" / ".lock"), pytest.raises(Failure, match="another `make masks` writes to"):
        masks.main(["--run", f"{tmp_path}", "--data", f"{data.root}"])


def test_the_size_is_taken_from_the_photos_of_the_run(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (data.root / "test_hq").mkdir()
    Image.new("RGB", (40, 30)).save(data.root / "test_hq" / "f00d_01.jpg")
    (tmp_path / "settings.yaml").write_text("data: {hq: true}")
    submission(tmp_path, {"f00d_01.jpg": "1199 2"})
    masks.main(["--run", f"{tmp_path}", "--data", f"{data.root}"])
    assert read_mask(tmp_path / "masks" / "f00d_01_mask.png").labels.shape == (30, 40)


def test_coco_annotations_are_one_file_beside_the_submission(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    submission(tmp_path, {"f00d_01.jpg": "", "f00d_02.jpg": "1 3 40 2"})
    call = ["--run", f"{tmp_path}", "--data", f"{data.root}", "--format", "coco"]
    masks.main(call)
    assert capsys.readouterr().out == f"2 masks in {tmp_path / 'masks.json'}\n"
    content = json.loads((tmp_path / "masks.json").read_text())
    assert [image["file_name"] for image in content["images"]] == list(SHAPES)
    assert [(each["image_id"], each["area"]) for each in content["annotations"]] == [(2, 5)]
    with held(tmp_path / ".masks.json.lock"), pytest.raises(Failure, match="another `make masks` writes"):
        masks.main(call)
    assert not (tmp_path / "masks").exists()
