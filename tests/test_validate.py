"""The validator: one pass finds every error, by line and cause."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_csv_file import edits, mutated, zipped

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import sha256
from competition.rle import Shape
from competition.run.folder import RunFolder
from competition.run.records import Validated
from submissions import submission_file, validate

SHAPE = (10, 20)
NAMES = [f"{car}_{view:02d}.jpg" for car in ("0cdf5b5d0ce1", "f00d") for view in range(1, 4)]
GOOD = dict.fromkeys(NAMES, "21 10 41 10 61 10")  # 30 of 200 pixels


def shape_of_image(img: str) -> Shape:
    return SHAPE


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def found(file: Path, names: list[str] = NAMES) -> list[tuple[validate.Kind, str]]:
    return [
        (kind, text.removeprefix(f"{file}").lstrip()) for kind, text in validate.findings(file, names, shape_of_image)
    ]


def errors(file: Path, names: list[str] = NAMES, shapes: validate.ShapeOfImage = shape_of_image) -> list[str]:
    return [text for kind, text in validate.findings(file, names, shapes) if kind not in validate.HARMLESS]


def submission(folder: Path, **changed: str) -> Path:
    """A valid submission with changed codes, given by image name without the extension."""
    codes = GOOD | {f"{img.removeprefix('x')}.jpg": code for img, code in changed.items()}
    path = folder / "submission.csv.gz"
    submission_file.write(path, codes.items())
    return path


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder with photos of two sizes, and the names of a submission."""
    root = tmp_path / "data"
    (root / "test").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        size = (20, 10) if number else (40, 10)  # the first one is wider
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(root / "test" / name)
    submission_file.write(root / "sample_submission.csv", ((name, "1 1") for name in NAMES))
    return DataFolder(root)


def test_a_valid_file_has_no_findings(tmp_path: Path) -> None:
    assert found(submission(tmp_path)) == []
    assert found(submission(tmp_path, xf00d_02="1 5 191 10")) == [], "the first and the last pixel are in the image"


@pytest.mark.parametrize(
    ("name", "pack", "right"),
    [
        ("s.csv", bytes, ""),
        ("s.csv", lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n\r\n", ""),
        ("s.csv.gz", gzip.compress, ""),
        ("S.CSV.GZ", gzip.compress, ""),
        ("s.zip", lambda text: zipped(("other.csv", text)), ""),
        (
            "s.csv",
            gzip.compress,
            "gzip, but its name says plain text, and Kaggle may go by the name; name it s.csv.gz",
        ),
        ("s", gzip.compress, "gzip, but its name says plain text, and Kaggle may go by the name; name it s.csv.gz"),
        ("s.csv.gz", bytes, "plain text, but its name says gzip, and Kaggle may go by the name; name it s.csv"),
        ("s.zip", gzip.compress, "gzip, but its name says zip, and Kaggle may go by the name; name it s.csv.gz"),
        ("s.csv.gz", lambda text: zipped(("x.csv", text)), "zip, but its name says gzip, and Kaggle may go by the n"),
    ],
)
def test_the_first_bytes_decide_and_the_name_must_agree(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], right: str
) -> None:
    submission_file.write(tmp_path / "plain.csv", GOOD.items())
    path = tmp_path / name
    path.write_bytes(pack((tmp_path / "plain.csv").read_bytes()))
    expected = [validate.Kind.NAME] if right else []
    assert [kind for kind, _ in found(path)] == expected
    assert "".join(errors(path)).startswith(f"{path} holds {right}" if right else "")


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.sampled_from([bytes, gzip.compress, lambda text: zipped(("x.csv", text))]), edits)
def test_a_damaged_file_is_what_pandas_reads_or_has_errors(
    tmp_path_factory: pytest.TempPathFactory,
    pack: Callable[[bytes], bytes],
    changes: list[tuple[str, int, bytes]],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    submission_file.write(folder / "plain.csv", GOOD.items())
    content = mutated(pack((folder / "plain.csv").read_bytes()), changes)
    packing = {b"\x1f\x8b": "gzip", b"PK": "zip"}.get(content[:2])
    path = folder / {"gzip": "s.csv.gz", "zip": "s.zip", None: "s.csv"}[packing]
    path.write_bytes(content)
    if not errors(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, compression=packing)
        assert list(table.columns) == ["img", "rle_mask"]
        assert sorted(table["img"]) == sorted(NAMES)


def test_another_order_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    submission_file.write(path, reversed(GOOD.items()))
    assert [kind for kind, _ in found(path)] == [validate.Kind.ORDER]
    assert errors(path) == []


def test_every_error_is_found_in_one_pass(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.csv",
        "img,mask\n"
        f"{NAMES[0]},21 0\n"
        f"{NAMES[1]},21 10,41 10\n"  # three fields
        "other.jpg,21 10\n"
        f"{NAMES[2]},21 10\n"
        "\n"
        f"{NAMES[2]},5 -1\n"
        f"{NAMES[3]},\n",
    )
    kind = validate.Kind
    assert found(path) == [
        (kind.HEADER, "line 1: the header is 'img,mask', not 'img,rle_mask'"),
        (kind.SPANS, f"line 2, {NAMES[0]}: token 2: length 0 is not positive"),
        (kind.ROW, "line 3: 3 fields, not the two of img,rle_mask"),
        (kind.FOREIGN, "line 4: 'other.jpg' is not in the sample submission"),
        (kind.DOUBLED, f"line 7: {NAMES[2]} is already in line 5"),
        (kind.SPANS, f"line 7, {NAMES[2]}: token 2: length -1 is not positive"),
        (kind.AREA, f"line 8, {NAMES[3]}: the mask is empty; a car covers 9 % to 41 %"),
        (kind.MISSING, f": no row for {NAMES[1]}"),
        (kind.MISSING, f": no row for {NAMES[4]}"),
        (kind.MISSING, f": no row for {NAMES[5]}"),
    ]


def test_an_unreadable_or_empty_file_is_reported_without_its_missing_names(tmp_path: Path) -> None:
    path, kind = submission(tmp_path), validate.Kind
    path.write_bytes(path.read_bytes()[:-8])
    assert [each for each, _ in found(path)] == [kind.FILE]
    path.write_bytes(gzip.compress(b"\xff\xfe\x00"))
    assert [each for each, _ in found(path)] == [kind.FILE]
    path.write_bytes(gzip.compress(b""))
    assert [each for each, _ in found(path)] == [kind.HEADER, kind.MISSING]
    path.write_bytes(gzip.compress(b"img,rle_mask\n"))
    assert found(path) == [(kind.MISSING, ": no rows")]


def test_implausible_masks_are_harmless_while_they_are_few(tmp_path: Path) -> None:
    names = [f"{number}_01.jpg" for number in range(40)]
    path = tmp_path / "s.csv"
    for implausible, expected in ((2, []), (3, [f"{path}: implausible masks: 3 of 40"])):
        codes = ["", "1 199", "1 1"][:implausible] + ["21 40"] * (40 - implausible)
        submission_file.write(path, zip(names, codes, strict=True))
        texts = [text for kind, text in validate.findings(path, names, shape_of_image) if kind is validate.Kind.AREA]
        assert len(texts) == implausible
        assert errors(path, names) == expected
    assert "covers 99.50% of the photo" in texts[1]


def test_the_image_size_is_that_of_each_photo(tmp_path: Path, data: DataFolder) -> None:
    path = submission(tmp_path, x0cdf5b5d0ce1_01="350 51", x0cdf5b5d0ce1_02="180 22")
    assert errors(path, data.submission_names, validate.shapes(data)) == [
        f"{path} line 3, {NAMES[1]}: token 2: length 22 leaves the image of 200 pixels"
    ]
    shutil.rmtree(data.root / "test")
    assert validate.shapes(DataFolder(data.root))(NAMES[0]) == (1280, 1918), "Carvana's"


def test_the_command_stamps_a_valid_file(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "first"
    file = submission(tmp_path)
    run.mkdir(parents=True)
    file = file.rename(run / "submission.csv.gz")
    validate.main(["--run", str(run), "--data", str(data.root)])
    assert capsys.readouterr().out == f"{file} is a valid submission: 6 rows, every mask plausible\n"
    stamp = Validated.read(RunFolder(run).validated)
    assert stamp == validate.stamp(sha256(file), data)
    assert stamp.rows == 6


def test_an_invalid_or_another_file_gets_no_stamp(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    validate.main(["--file", str(submission(tmp_path)), "--data", str(data.root)])
    submission(tmp_path, xf00d_01="5")
    capsys.readouterr()
    with pytest.raises(Failure, match=r"not a valid submission \(1 x malformed mask; listed above\); remove it"):
        validate.main(["--run", str(tmp_path), "--data", str(data.root)])
    assert "line 5, f00d_01.jpg: odd count" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "submission.csv.gz"]


def test_too_many_findings_of_one_kind_are_counted(
    tmp_path: Path, data: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.csv"
    submission_file.write(file, [*GOOD.items(), *((f"{number}.jpg", "") for number in range(60))])
    with pytest.raises(Failure, match="60 x foreign name"):
        validate.validate(file, data)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == validate.SHOWN + 1
    assert lines[-1] == "... and 10 more: foreign name"
