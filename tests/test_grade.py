"""The grade: numbers worked out by hand, and the same names on both sides."""

import json
from pathlib import Path

import pytest

from competition.command import Failure
from submissions import grade, submission_file

SOLUTION = [("a.jpg", "1 10"), ("b.jpg", ""), ("c.jpg", "1 4 11 4")]


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    submission_file.write(tmp_path / "solution.csv", SOLUTION)
    return tmp_path / "solution.csv"


def submission(folder: Path, rows: list[tuple[str, str]]) -> Path:
    submission_file.write(folder / "submission.csv.gz", rows)
    return folder / "submission.csv.gz"


def test_the_solution_itself_is_perfect(tmp_path: Path, solution: Path) -> None:
    assert grade.grade(submission(tmp_path, SOLUTION[::-1]), solution) == (1.0, 1.0, 3)


def test_dice_and_iou_are_means_over_the_images(tmp_path: Path, solution: Path) -> None:
    # a: 5 of 10 in common: Dice 10/15, IoU 5/10; b: nothing in common; c: 6 in common of 8 and 6.
    scores = grade.grade(submission(tmp_path, [("a.jpg", "6 5"), ("b.jpg", "3 1"), ("c.jpg", "2 3 11 3")]), solution)
    assert scores.dice == pytest.approx((10 / 15 + 0 + 12 / 14) / 3)
    assert scores.iou == pytest.approx((5 / 10 + 0 + 6 / 8) / 3)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (SOLUTION[:2], r"has no row for c\.jpg, one of 1 missing"),
        ([*SOLUTION, SOLUTION[0]], r"line 5: a\.jpg occurs a second time"),
        ([*SOLUTION, ("d.jpg", "")], r"line 5: d\.jpg is not in .*solution\.csv"),
        ([("a.jpg", "1 2 3"), *SOLUTION[1:]], r"line 2, a\.jpg: odd count of numbers"),
    ],
)
def test_other_names_and_bad_rows_are_fatal(
    tmp_path: Path, solution: Path, rows: list[tuple[str, str]], reason: str
) -> None:
    with pytest.raises(Failure, match=reason):
        grade.grade(submission(tmp_path, rows), solution)


def test_a_doubled_or_empty_solution_is_fatal(tmp_path: Path, solution: Path) -> None:
    path = submission(tmp_path, SOLUTION)
    submission_file.write(solution, [*SOLUTION, SOLUTION[1]])
    with pytest.raises(Failure, match=r"solution\.csv line 5: b\.jpg stands already in line 3"):
        grade.grade(path, solution)
    submission_file.write(solution, [])
    with pytest.raises(Failure, match="has no rows"):
        grade.grade(path, solution)


def test_each_file_has_its_own_advice_for_a_bad_row(tmp_path: Path, solution: Path) -> None:
    path = submission(tmp_path, [("a.jpg", "1 2 3"), *SOLUTION[1:]])
    with pytest.raises(Failure, match=r"line 2, a\.jpg: odd .*; `make validate` finds every such row$"):
        grade.grade(path, solution)
    submission_file.write(solution, [*SOLUTION[:2], ("c.jpg", "4 1 4")])
    with pytest.raises(Failure, match=r"solution\.csv line 4, c\.jpg: odd .*; repair that line of the solution$"):
        grade.grade(submission(tmp_path, SOLUTION), solution)


def test_the_command_prints_the_cv_beside_the_score(
    tmp_path: Path, solution: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    submission(run, SOLUTION)
    command = ["--run", str(run), "--solution", str(solution)]
    grade.main(command)
    assert capsys.readouterr().out == "3 images: Dice 1.000000, IoU 1.000000\n"
    (run / "cv.json").write_text(json.dumps({"dice": 0.9875}))
    grade.main(command)
    expected = "CV of run run: Dice 0.987500; the submission differs by +0.012500"
    assert capsys.readouterr().out.splitlines()[1] == expected
