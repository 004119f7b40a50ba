"""The records of a run: writing and reading back, and files that are damaged or from another version."""

import json
from pathlib import Path

import pytest
from sample_records import make_cv, make_environment, make_submission_record

from competition.command import Failure
from competition.run.records import (
    CV,
    Environment,
    Epoch,
    Gain,
    Pushing,
    Record,
    SubmissionRecord,
    Validated,
    read_history,
    write_history,
)

WEIGHTS = {"runs/a": 0.25, "runs/b": 0.75}
RECORDS = [
    make_cv(),
    make_cv(member_weights=WEIGHTS, gains=[Gain(what="a", dice=0.9), Gain(what="b", dice=0.8, over="a", gain=-0.1)]),
    make_submission_record(),
    make_submission_record(threads=None, member_weights=WEIGHTS),
    make_environment(),
    make_environment(git="0123456789ab+", runs=["runs/a", "runs/b"], packages={"torch": None}),
    Validated(sha256="1" * 64, names="2" * 64, rows=3),
    Pushing(sha256="1" * 64),
]
EPOCHS = [
    Epoch(epoch=1, lr=0.1, loss=0.5, seconds=2.0, images_per_second=8.0),
    Epoch(epoch=2, lr=0.1, loss=0.25, seconds=2.0, images_per_second=8.0, dice=0.9, iou=0.8, best=True),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_survives_a_file(tmp_path: Path, record: Record) -> None:
    record.write(tmp_path / "x.json")
    assert type(record).read(tmp_path / "x.json") == record
    assert not [path for path in tmp_path.iterdir() if path.name != "x.json"]


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (CV, {"dice": None}, r"\(dice: Field required\)"),
        (CV, {"dice": "high"}, r"\(dice: Input should be a valid number"),
        (CV, {"views": ["hflip"]}, r"\(views: Extra inputs are not permitted\)"),
        (CV, {"folds": [{"fold": 0}]}, r"\(folds\.0\.cars: Field required\)"),
        (SubmissionRecord, {"member_weights": [1.0]}, r"\(member_weights: Input should be a valid dictionary"),
        (Environment, {"fingerprint": None}, r"\(fingerprint: Field required\)"),
    ],
)
def test_record_of_another_version(tmp_path: Path, model: type[Record], changes: dict, reason: str) -> None:
    record = next(each for each in RECORDS if isinstance(each, model))
    content = {**record.model_dump(mode="json", exclude_none=True), **changes}
    (tmp_path / "x.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(Failure, match=rf"x\.json is damaged or from another version {reason}.*; [a-z ]+"):
        model.read(tmp_path / "x.json")


@pytest.mark.parametrize("content", ["", "[1]", '{"dice": NaN}'])
@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (Environment, "restore it from a copy, or use another RUN"),
        (CV, "write it again: make score RUN=x"),
        (SubmissionRecord, "remove it and write it again: make predict RUN=x"),
        (Validated, "write it again: make validate RUN=x"),
        (Pushing, "find out on Kaggle's page whether the file was submitted"),
    ],
)
def test_damaged_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, model: type[Record], advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("runs/x/record.json")
    assert model.read_if_exists(file) is None
    with pytest.raises(Failure, match=r"cannot read .*record\.json: no such file"):
        model.read(file)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(Failure, match=rf"^runs/x/record\.json .*; {advice}"):
        model.read(file)


def test_score_of_a_fold() -> None:
    fold = make_cv().fold(3)
    assert fold is not None
    assert fold.fold == 3
    assert make_cv().fold(5) is None


def test_history_survives_a_file(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == []
    write_history(tmp_path / "history.jsonl", EPOCHS)
    assert read_history(tmp_path / "history.jsonl") == EPOCHS
    content = (tmp_path / "history.jsonl").read_bytes()
    (tmp_path / "history.jsonl").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert read_history(tmp_path / "history.jsonl") == EPOCHS


@pytest.mark.parametrize("damage", [b'{"epoch": 3', b"{}", b"[]", b"\x00", b'{"epoch": 3, "views": 1}', b"\xff\xfe"])
def test_damaged_history(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "x" / "fold2" / "history.jsonl"
    write_history(file, EPOCHS)
    file.write_bytes(file.read_bytes() + damage + b"\n")
    reason = "can't decode" if damage == b"\xff\xfe" else "line 3 is not an epoch"
    with pytest.raises(Failure, match=rf"history\.jsonl.* {reason}.*: make train FOLD=2 RUN={tmp_path}/x$"):
        read_history(file)
