"""Kaggle's score of a submission whose solution is known, as for generated data: ``make grade``."""

from collections.abc import Sequence
from pathlib import Path

from competition import metrics
from competition.command import Failure, parser, run_command
from competition.mask_table import Truth, read_table, score
from competition.metrics import Scores
from competition.plural import counted
from competition.run.folder import run_at
from competition.run.records import CV


def grade(submission: Path, solution: Path) -> Scores:
    """Mean Dice and IoU of a submission against the true masks.

    Args:
        submission: a CSV of img,rle_mask, plain, gzipped or zipped, in any order; it is read one row at a time.
        solution: the same with the true masks; it is held in memory.
    """
    true = read_table(solution)
    if not true:
        raise Failure(f"{solution} has no rows; name a solution with the true masks")
    advice = (
        "grade a submission with the solution of its own data; `make predict` writes it again, and `make validate` "
        "lists every such row"
    )
    return metrics.mean(list(score(submission, true, lambda img: Truth(true[img].spans()), advice).values()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores of a submission, and the run's CV for comparison."""
    arguments = parser("Score a submission file against a known solution.")
    arguments.add_argument("--run", default="default", help="name of the run, a folder in runs/, or a path")
    arguments.add_argument("--solution", type=Path, required=True, help="CSV of img,rle_mask with the true masks")
    arguments.add_argument("--file", type=Path, help="the submission; by default the run's submission.csv.gz")
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    scores = grade(options.file or run.submission, options.solution)
    print(f"{counted(scores.images, 'image')}: Dice {scores.dice:.6f}, IoU {scores.iou:.6f}")
    cv = CV.read_if_exists(run.cv)
    if cv:
        print(f"CV of run {run.name}: Dice {cv.dice:.6f}; the submission differs by {scores.dice - cv.dice:+.6f}")


if __name__ == "__main__":
    run_command(main)
