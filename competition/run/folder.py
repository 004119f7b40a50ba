"""A run is a folder, and its files are what the stages promise each other.

settings.yaml, environment.json     what was asked for, and where, with what and from which data
folds.csv                           img,car,fold: the truth about the split
fold<n>/last.pt                     all that the training of a fold needs to go on
fold<n>/best.safetensors            its best weights
fold<n>/history.jsonl               a line an epoch
fold<n>/pseudo.csv.gz               the pseudo-labels it learns from, if any
oof.csv.gz, oof_scores.csv, cv.json     out-of-fold masks, their scores, and the CV
submission.csv.gz                   the test set's masks
pseudo/fold<n>.csv.gz               those of the test images that a fold's networks are surest of
report.html
"""

from dataclasses import dataclass
from pathlib import Path

RUNS = Path("runs")
DEFAULT_DATA = Path("data/carvana")
SCORE_COLUMNS = ["img", "car", "view", "fold", "dice", "iou"]  # of oof_scores.csv


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.root.name

    @property
    def called(self) -> str:
        """What a command line calls the run: its name, where it lies below runs/, else its path."""
        return self.name if self.root.parent == RUNS else str(self.root)

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.root / "settings.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device, git revision, and the data the run was made from."""
        return self.root / "environment.json"

    @property
    def folds(self) -> Path:
        """The split."""
        return self.root / "folds.csv"

    def fold(self, number: int) -> Path:
        """The folder of one fold's training."""
        return self.root / f"fold{number}"

    def last(self, number: int) -> Path:
        """Where the training of a fold goes on."""
        return self.fold(number) / "last.pt"

    def best(self, number: int) -> Path:
        """A fold's best weights."""
        return self.fold(number) / "best.safetensors"

    def history(self, number: int) -> Path:
        """A fold's epochs, one JSON object a line."""
        return self.fold(number) / "history.jsonl"

    @property
    def oof(self) -> Path:
        """The out-of-fold masks."""
        return self.root / "oof.csv.gz"

    @property
    def oof_scores(self) -> Path:
        """img,car,view,fold,dice,iou."""
        return self.root / "oof_scores.csv"

    @property
    def cv(self) -> Path:
        """The CV: Dice and IoU per fold, mean and spread, threshold."""
        return self.root / "cv.json"

    @property
    def submission(self) -> Path:
        """The masks of the test set."""
        return self.root / "submission.csv.gz"

    @property
    def submission_record(self) -> Path:
        """What made the submission."""
        return self.root / "submission.json"

    @property
    def validated(self) -> Path:
        """The stamp of the submission that was validated."""
        return self.root / "submission.validated.json"

    @property
    def pushing(self) -> Path:
        """The submission whose upload has begun and is not known to have ended."""
        return self.root / "submission.pushing.json"

    def pseudo(self, number: int) -> Path:
        """What a fold's networks say of the test images that they are surest of."""
        return self.root / "pseudo" / f"fold{number}.csv.gz"

    def learned_pseudo(self, number: int) -> Path:
        """The pseudo-labels that a fold learns from: a copy, so that it goes on with what it began with."""
        return self.fold(number) / "pseudo.csv.gz"

    @property
    def report(self) -> Path:
        """One HTML page of the run."""
        return self.root / "report.html"


def run_at(name: str) -> RunFolder:
    """The run of that name below runs/, or at that path."""
    return RunFolder(Path(name) if "/" in name else RUNS / name)
