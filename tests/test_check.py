import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import CARS, TEST_CARS, TINY_SHAPE, save_mask, tiny_car, write_rows
from PIL import Image

from competition import check, rle
from competition.check import problems
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.photo import Photo

NAMES = sorted(f"{car}_{view}" for car in CARS for view in ("01", "09"))

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_folder_in_order(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check.main(["--data", str(tiny_data)])
    expected = "is in order: 10 training photos of 5 cars with masks, 4 test photos\n"
    assert capsys.readouterr().out.endswith(expected)


def test_zip_files_that_are_not_unpacked_are_noted(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own_data / "test")
    for name in ("test", "train", "sample_submission.csv"):
        (own_data / f"{name}.zip").touch()
    check.main(["--data", str(own_data)])
    assert "note: test.zip is there: `make data FROM=" in capsys.readouterr().out
    assert [line.split(" is there")[0] for line in check.notes(DataFolder(own_data))] == ["test.zip"]


def test_every_problem_is_listed_exactly_once(own_data: Path, command: Command) -> None:
    train, masks, test = (own_data / name for name in ("train", "train_masks", "test"))
    content = (train / f"{NAMES[0]}.jpg").read_bytes()
    (train / f"{NAMES[0]}.jpg").write_bytes(content[: len(content) // 2])
    (train / f"{NAMES[1]}.jpg").write_bytes(b"")
    (masks / f"{NAMES[2]}_mask.gif").write_bytes(b"no image")
    save_mask(masks / f"{NAMES[3]}_mask.gif", np.zeros((64, 95), dtype=np.uint8))
    (masks / f"{NAMES[6]}_mask.gif").unlink()
    save_mask(masks / "unknown_01_mask.gif", tiny_car(1)[1])
    (test / f"{TEST_CARS[0]}_01.jpg").write_text("no image")
    (test / f"{TEST_CARS[1]}_09.jpg").rename(test / "new_01.jpg")
    (own_data / "metadata.csv").write_text("car,make\n")
    rows = dict(line.split(",") for line in (own_data / "train_masks.csv").read_text().splitlines()[1:])
    start, length, rest = rows[f"{NAMES[4]}.jpg"].split(" ", 2)
    rows[f"{NAMES[4]}.jpg"] = f"{int(start) + 1} {int(length) - 1} {rest}"
    rows[f"{NAMES[5]}.jpg"] = "1 2 x"
    del rows[f"{NAMES[6]}.jpg"]
    rows["stranger_01.jpg"] = ""
    lines = [
        "img,rle_mask",
        *(f"{img},{code}" for img, code in rows.items()),
        f"{NAMES[7]}.jpg,{rows[f'{NAMES[7]}.jpg']}",
    ]
    (own_data / "train_masks.csv").write_text("\n".join(lines))
    line = {img: number for number, img in enumerate(rows, start=2)}

    done = command("competition.check", "--data", own_data)

    csv = own_data / "train_masks.csv"
    sample = own_data / "sample_submission.csv"
    expected = [
        f"{train / NAMES[0]}.jpg is damaged",
        f"{train / NAMES[1]}.jpg is empty; copy it again",
        f"{masks / NAMES[2]}_mask.gif is not an image; copy it again",
        f"{masks / NAMES[3]}_mask.gif is 95 x 64, but {train / NAMES[3]}.jpg is 96 x 64",
        f"{csv} line {line[f'{NAMES[4]}.jpg']}: differs from {masks / NAMES[4]}_mask.gif in 1 pixels",
        f"{csv} line {line[f'{NAMES[5]}.jpg']}, {NAMES[5]}.jpg: token 3, 'x', is not a whole number",
        f"{train / NAMES[6]}.jpg has no mask, neither a file nor a row in train_masks.csv",
        f"{csv} line {len(lines)}: {NAMES[7]}.jpg is already in line {line[f'{NAMES[7]}.jpg']}",
        f"{csv} line {line['stranger_01.jpg']}: there is no photo stranger_01.jpg",
        f"{masks / 'unknown_01_mask.gif'} is the mask of no photo",
        f"{test / TEST_CARS[0]}_01.jpg is not an image",
        f"{sample} names {TEST_CARS[1]}_09.jpg, which is not in the test folder",
        f"{test / 'new_01.jpg'} is not in sample_submission.csv",
        f"{own_data / 'metadata.csv'} has no column `id`",
    ]
    printed = done.stdout.partition("\n\n")[0].splitlines()
    for start_of_line in expected:
        assert sum(text.startswith(start_of_line) for text in printed) == 1, start_of_line
    assert len(printed) == len(expected)
    assert done.returncode == 1
    assert done.stderr == f"error: {own_data}: {len(expected)} problems, listed above\n"


def test_a_file_and_its_mask_may_both_be_wrong(own_data: Path) -> None:
    (own_data / "train" / f"{NAMES[0]}.jpg").write_bytes(b"")
    (own_data / "train_masks" / f"{NAMES[0]}_mask.gif").write_bytes(b"")
    text = (own_data / "train_masks.csv").read_text().splitlines()
    text = [f"{NAMES[0]}.jpg,7" if line.startswith(NAMES[0]) else line for line in text]
    (own_data / "train_masks.csv").write_text("\n".join(text))
    found = list(problems(DataFolder(own_data)))
    assert len(found) == 3
    assert all(part in " ".join(found) for part in (".jpg is empty", "_mask.gif is empty", ".jpg: odd count"))


def test_masks_in_csv_only_and_a_row_that_cannot_be_read(own_data: Path) -> None:
    """The bad row may be that of any photo, so no photo is called unlabelled."""
    for path in (own_data / "train_masks").iterdir():
        path.unlink()
    assert list(problems(DataFolder(own_data))) == []
    lines = (own_data / "train_masks.csv").read_text().splitlines()
    lines[3] += ",more"
    (own_data / "train_masks.csv").write_text("\n".join(lines))
    assert list(problems(DataFolder(own_data))) == [
        f"{own_data / 'train_masks.csv'} line 4: 3 fields, not the two of img,rle_mask"
    ]


def test_rows_without_a_photo_are_listed_in_the_order_of_the_file(own_data: Path) -> None:
    with (own_data / "train_masks.csv").open("a") as file:
        file.writelines(f"{name}.jpg,\n" for name in "qwertyuiop")
    assert [line[-5] for line in problems(DataFolder(own_data))] == list("qwertyuiop")


def test_ctrl_c_stops_it_at_once(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Photo] = []

    def read(photo: Photo) -> None:
        seen.append(photo)
        if len(seen) == 1:
            raise KeyboardInterrupt
        time.sleep(0.3)

    monkeypatch.setattr(Photo, "read", read)
    with pytest.raises(KeyboardInterrupt):
        list(problems(DataFolder(own_data), workers=1))
    assert len(seen) <= 2, "the interrupted photo, and one that was being read"


def test_implausible_masks_are_problems(own_data: Path) -> None:
    """In the files, in the CSV, or in both."""
    save_mask(own_data / "train_masks" / f"{NAMES[0]}_mask.gif", np.zeros(TINY_SHAPE, np.uint8))
    save_mask(own_data / "train_masks" / f"{NAMES[1]}_mask.gif", np.ones(TINY_SHAPE, np.uint8))
    rows = dict(line.split(",") for line in (own_data / "train_masks.csv").read_text().splitlines()[1:])
    del rows[f"{NAMES[0]}.jpg"], rows[f"{NAMES[1]}.jpg"]
    write_rows(own_data / "train_masks.csv", rows | {f"{NAMES[4]}.jpg": ""})
    found = [line for line in problems(DataFolder(own_data)) if "covers" in line]
    limits = "of the photo, less than data.min_area=0.01 or more than data.max_area=0.9"
    photos = [own_data / "train" / f"{NAMES[index]}.jpg" for index in (0, 1, 4)]
    assert found == [
        f"the mask of {photo} covers {area} {limits}"
        for photo, area in zip(photos, ("0.0000", "1.0000", "0.0000"), strict=True)
    ]


def test_masks_that_look_inverted_are_named(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Black on white, in a file or in a row. A large car that leaves most of the border free is none of them."""
    masks, lines = own_data / "train_masks", (own_data / "train_masks.csv").read_text().splitlines()
    rows = dict(line.split(",") for line in lines[1:])
    rows[f"{NAMES[0]}.jpg"] = rle.encode(1 - DataFolder(own_data).truth(DataFolder(own_data).train[0]))
    (masks / f"{NAMES[0]}_mask.gif").unlink()
    for name in NAMES[1:3]:
        del rows[f"{name}.jpg"]
    inverted, large = np.ones(TINY_SHAPE, np.uint8), np.zeros(TINY_SHAPE, np.uint8)
    inverted[20:50, 20:70], large[1:60, 1:90] = 0, 1
    save_mask(masks / f"{NAMES[1]}_mask.gif", inverted)
    save_mask(masks / f"{NAMES[2]}_mask.gif", large)
    write_rows(own_data / "train_masks.csv", rows)

    check.main(["--data", str(own_data)])
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if " inverted" in line] == [
        f"note: the mask of {own_data}/train/{name}.jpg looks inverted: most of the photo and of its border is read "
        "as car; invert it if the car is the rest"
        for name in NAMES[:2]
    ]


def test_of_many_notes_ten_are_shown(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataFolder(own_data)
    for photo in data.train:
        (own_data / "train" / f"extra-{photo.img}").write_bytes(photo.path.read_bytes())
        save_mask(own_data / "train_masks" / f"extra-{photo.img[:-4]}_mask.gif", 1 - data.truth(photo))
    (own_data / "train" / "last.jpg").write_bytes(photo.path.read_bytes())
    save_mask(own_data / "train_masks" / "last_mask.gif", 1 - data.truth(photo))
    for options, shown in (([], 10), (["--all"], 11)):
        check.main(["--data", str(own_data), *options])
        printed = capsys.readouterr().out
        assert printed.count("looks inverted") == shown
        assert ("... and 1 more like these; ALL=1" in printed) is (shown == 10)


def test_a_missing_train_folder_is_one_problem(own_data: Path) -> None:
    shutil.rmtree(own_data / "train")
    found = list(problems(DataFolder(own_data)))
    assert len(found) == 1
    assert found[0].startswith(f"{own_data} has no folder train or train_hq; ")
    with pytest.raises(Failure, match=f"{own_data}: 1 problem, listed above"):
        check.main(["--data", str(own_data)])


def test_a_missing_test_folder_is_no_problem(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own_data / "test")
    check.main(["--data", str(own_data)])
    assert "test set     none; `make predict` will need photos in test/\n" in capsys.readouterr().out


def test_summary(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_data / "notes.txt").write_text("")
    name = f"{NAMES[0]}.jpg"
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(own_data / "train" / name) as image:
        image.save(own_data / "train" / name, exif=exif)
    check.main(["--data", str(own_data)])
    areas = sorted(
        (rle.area(DataFolder(own_data).truth_spans(photo)) / 6144, photo.img) for photo in DataFolder(own_data).train
    )
    small, middle, large = areas[0], areas[5], areas[-1]
    assert capsys.readouterr().out.splitlines() == [
        "photos       10 to train, 4 to predict",
        "formats      jpg (14)",
        "sizes        96 x 64 (14)",
        "orientation  EXIF orientation of 1 photo ignored (1 x 3)",
        "cars         10 photos of 5 cars, 2 of each (data.cars=auto)",
        "masks        10 files, 10 rows of train_masks.csv",
        "values       0/255 in 10 files, 255 is car",
        f"areas        smallest  {100 * small[0]:.1f} % {small[1]}",
        f"             median    {100 * middle[0]:.1f} % {middle[1]}",
        f"             largest   {100 * large[0]:.1f} % {large[1]}",
        "test set     4 photos, 4 in sample_submission.csv",
        f"{own_data} is in order: 10 training photos of 5 cars with masks, 4 test photos",
    ]


def test_the_summary_comes_after_problems_too(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (own_data / "train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(Failure, match="10 problems, listed above"):
        check.main(["--data", str(own_data), "--sheet", str(own_data / "sheet.png")])
    assert "\nsizes        96 x 64 (4)\n" in capsys.readouterr().out
    assert not (own_data / "sheet.png").exists(), "there is no photo to show"


@pytest.mark.parametrize(
    ("folder", "file", "lines"),
    [
        ("train", "a (1).jpg", ["photos    train/ not read (see above), 4 to predict"]),
        (
            "test",
            "broken.gif",
            ["photos       10 to train, test/ not read (see above)", "test set     test/ not read (see above)"],
        ),
        ("train_masks", "b\t.gif", ["masks        train_masks/ not read (see above), 10 rows of train_masks.csv"]),
    ],
)
def test_the_summary_does_not_count_what_a_bad_listing_hides(
    own_data: Path, capsys: pytest.CaptureFixture[str], folder: str, file: str, lines: list[str]
) -> None:
    (own_data / folder / file.replace(" (1)", "")).write_bytes(b"")
    (own_data / folder / file).write_bytes(b"")
    with pytest.raises(Failure, match="listed above"):
        check.main(["--data", str(own_data)])
    printed = capsys.readouterr().out.splitlines()
    assert set(lines) <= set(printed)
    assert sum("not read (see above)" in line for line in printed) == len(lines)


def test_of_many_problems_of_one_kind_ten_are_shown(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_data / "train" / f"{NAMES[0]}.jpg").write_bytes(b"")
    with (own_data / "train_masks.csv").open("a") as file:
        file.writelines(f"stranger_{number:02d}.jpg,\n" for number in range(25))
    for options, shown in (([], 10), (["--all"], 25)):
        with pytest.raises(Failure, match="26 problems, listed above"):
            check.main(["--data", str(own_data), *options])
        printed = capsys.readouterr().out
        assert printed.count("there is no photo stranger") == shown
        assert "jpg is empty" in printed
        assert ("... and 15 more like these; ALL=1 (--all) lists them" in printed) is (shown == 10)


def test_settings_of_the_data(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check.main(["--data", str(own_data), "--set", "data.cars=photo", "--sheet", str(own_data / "sheet.png")])
    assert "cars         10 photos of 10 cars, 1 of each (data.cars=photo)" in capsys.readouterr().out
    assert Image.open(own_data / "sheet.png").format == "PNG"
    with pytest.raises(Failure, match=r"only settings of the section data count here, .*; omit train.epochs=5"):
        check.main(["--data", str(own_data), "--set", "train.epochs=5"])
    with pytest.raises(Failure, match=r"data.car"):
        check.main(["--data", str(own_data), "--set", "data.car=photo"])
