from pathlib import Path

import pytest
from sample_records import make_cv

from competition.command import Failure
from competition.run.folder import RunFolder
from submissions import grade, submission_file

SOLUTION = [("a.jpg", "1 10"), ("b.jpg", ""), ("c.jpg", "1 4 11 4")]


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    submission_file.write(tmp_path / "solution.csv", SOLUTION)
    return tmp_path / "solution.csv"


def submission(folder: Path, rows: list[tuple[str, str]]) -> Path:
    submission_file.write(folder / "submission.csv.gz", rows)
    return folder / "submission.csv.gz"


def test_dice_and_iou_are_means_over_the_images(tmp_path: Path, solution: Path) -> None:
    assert grade.grade(submission(tmp_path, SOLUTION[::-1]), solution) == (1.0, 1.0, 3), "in any order"
    # a: 5 of 10 in common: Dice 10/15, IoU 5/10; b: nothing in common; c: 6 in common of 8 and 6.
    scores = grade.grade(submission(tmp_path, [("a.jpg", "6 5"), ("b.jpg", "3 1"), ("c.jpg", "2 3 11 3")]), solution)
    assert scores.dice == pytest.approx((10 / 15 + 0 + 12 / 14) / 3)
    assert scores.iou == pytest.approx((5 / 10 + 0 + 6 / 8) / 3)


def test_an_empty_solution_is_rejected(tmp_path: Path) -> None:
    submission_file.write(tmp_path / "solution.csv", [])
    with pytest.raises(Failure, match=r"solution\.csv has no rows"):
        grade.grade(submission(tmp_path, SOLUTION), tmp_path / "solution.csv")


def test_advice_about_other_images(tmp_path: Path, solution: Path) -> None:
    advice = "grade a submission with the solution of its own data; `make predict` writes it again, and "
    with pytest.raises(Failure, match=f"d.jpg is not one of the 3 images to score; {advice}"):
        grade.grade(submission(tmp_path, [*SOLUTION, ("d.jpg", "")]), solution)


def test_the_command_prints_the_cv_beside_the_score(
    tmp_path: Path, solution: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    submission(run.root, SOLUTION)
    command = ["--run", str(run.root), "--solution", str(solution)]
    grade.main(command)
    assert capsys.readouterr().out == "3 images: Dice 1.000000, IoU 1.000000\n"
    make_cv(dice=0.9875).write(run.cv)
    grade.main(command)
    expected = "CV of run run: Dice 0.987500; the submission differs by +0.012500"
    assert capsys.readouterr().out.splitlines()[1] == expected
