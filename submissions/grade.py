"""The score that Kaggle would give a submission, where the solution is known: for generated data, say."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from competition import metrics, rle
from competition.command import Failure, parser, run_command
from competition.metrics import Scores
from competition.rle import Spans
from competition.run.folder import RunFolder, run_at
from competition.run.records import CV
from submissions import submission_file


def grade(submission: Path, solution: Path) -> Scores:
    """Mean Dice and IoU of a submission against the true masks, image by image, straight from the spans.

    Args:
        submission: a CSV of img,rle_mask, gzipped or not, in any order.
        solution: the same with the true masks; it is held in memory, the submission is not.

    Raises:
        Failure: a file or a row is malformed, or a name is missing, doubled or foreign.
    """
    truth = _codes(solution)
    if not truth:
        raise Failure(f"{solution} has no rows; there is nothing to grade by")
    graded: dict[str, metrics.Counts] = {}
    rows = tqdm(submission_file.read(submission), total=len(truth), unit="image", disable=None, leave=False)
    for line, img, code in rows:
        where = f"{submission} line {line}"
        if img not in truth:
            raise Failure(f"{where}: {img} is not in {solution}; grade a submission by its own data's solution")
        if img in graded:
            raise Failure(f"{where}: {img} occurs a second time; `make validate` finds every such row")
        true_line, true_code = truth[img]
        true_spans = _spans(f"{solution} line {true_line}", img, true_code, "repair that line of the solution")
        spans = _spans(where, img, code, "`make validate` finds every such row")
        graded[img] = metrics.counts_of_spans(spans, true_spans)
    if len(graded) < len(truth):
        absent = next(img for img in truth if img not in graded)
        raise Failure(
            f"{submission} has no row for {absent}, one of {len(truth) - len(graded):,} missing; "
            "`make predict` writes it anew"
        )
    return metrics.mean(list(graded.values()))


def _codes(solution: Path) -> dict[str, tuple[int, str]]:
    """Name to line number and run-length code."""
    codes: dict[str, tuple[int, str]] = {}
    for line, img, code in submission_file.read(solution):
        if img in codes:
            raise Failure(f"{solution} line {line}: {img} stands already in line {codes[img][0]}; remove one of them")
        codes[img] = (line, code)
    return codes


def _spans(where: str, img: str, code: str, advice: str) -> Spans:
    try:
        return rle.parse(code)
    except ValueError as error:
        raise Failure(f"{where}, {img}: {error}; {advice}") from error


def _lines(run: RunFolder, scores: Scores) -> Iterator[str]:
    """The scores, and the run's CV beside them."""
    yield f"{scores.images:,} images: Dice {scores.dice:.6f}, IoU {scores.iou:.6f}"
    cv = CV.read_if_exists(run.cv)
    if cv:
        yield f"CV of run {run.name}: Dice {cv.dice:.6f}; the submission differs by {scores.dice - cv.dice:+.6f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores of a run's submission."""
    arguments = parser("Score a submission file against a known solution.")
    arguments.add_argument("--run", default="default", help="name of the run, a folder below runs/, or a path")
    arguments.add_argument("--solution", type=Path, required=True, help="CSV of img,rle_mask with the true masks")
    arguments.add_argument("--file", type=Path, help="the submission; by default the run's submission.csv.gz")
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    for line in _lines(run, grade(options.file or run.submission, options.solution)):
        print(line)


if __name__ == "__main__":
    run_command(main)
