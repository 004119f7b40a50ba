"""The folder of a run, and the names of the files in it.

settings.yaml                       the resolved settings
environment.json                    device, versions, git revision, data folder and its fingerprint
folds.csv                           img,car,fold: the split
fold<n>/last.pt                     the state of the training, to resume it
fold<n>/best.safetensors            the best weights
fold<n>/history.jsonl               one line per epoch
fold<n>/pseudo.csv.gz               the pseudo-labels in the training set, if any
first-stage/                        the run of the first stage of each fold's training, if there is one
oof.csv.gz, oof_scores.csv, cv.json out-of-fold masks, their scores, and the cross-validation score
submission.csv.gz, submission.json  the masks of the test set, and how they were predicted
certainty.csv                       img,expected_dice: how certain the networks are of each mask of the test set
masks/, masks.json                  the same as PNG files, or as COCO annotations
predictions/<name>/                 the masks of other data: data.json says which, and the files above
pseudo/fold<n>.csv.gz               pseudo-labels of the test set by the networks of each fold
oof/, shards/, pseudo/shards/       finished parts of a score, submission or pseudo-labels that are not complete
cutouts/                            photos that were cut out
<run>.onnx                          the networks as one ONNX model
engine.json                         whether onnxruntime can compute the networks
report.html
README.md, SHA256SUMS               of a packed run: model card and checksums
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

RUNS = Path("runs")
DEFAULT_DATA = Path("data/carvana")
SCORE_COLUMNS = ["img", "car", "view", "fold", "dice", "iou"]  # of oof_scores.csv


@dataclass(frozen=True)
class Predicted(ABC):
    """The paths of predicted masks. Those of the run's own test set lie in the folder of the run itself."""

    root: Path

    @property
    def submission(self) -> Path:
        """The masks."""
        return self.root / "submission.csv.gz"

    @property
    def submission_record(self) -> Path:
        """How they were predicted."""
        return self.root / "submission.json"

    @property
    def certainty(self) -> Path:
        """The expected Dice of each mask: img,expected_dice."""
        return self.root / "certainty.csv"

    @property
    def validated(self) -> Path:
        """Which submission file has been validated."""
        return self.root / "submission.validated.json"

    @property
    def submission_shards(self) -> Path:
        """The finished parts of masks that are not complete."""
        return self.root / "shards"

    @property
    def lock(self) -> Path:
        """Held by the command that predicts."""
        return self.root / ".inference.lock"

    @property
    @abstractmethod
    def variables(self) -> dict[str, str]:
        """The variables of make that name these masks."""


@dataclass(frozen=True)
class RunFolder(Predicted):
    """The paths of a run."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.name

    @property
    def called(self) -> str:
        """The run in a command line: its name if the folder is in runs/, else its path."""
        path = str(self.root)
        return self.name if self.root.parent == RUNS else path if "/" in path else f"./{path}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of make that name the run."""
        return {"RUN": self.called}

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.root / "settings.yaml"

    @property
    def environment(self) -> Path:
        """Device, versions, git revision and data."""
        return self.root / "environment.json"

    @property
    def folds(self) -> Path:
        """The split."""
        return self.root / "folds.csv"

    @property
    def first_stage(self) -> "RunFolder":
        """The run of the first stage of each fold's training."""
        return RunFolder(self.root / "first-stage")

    def fold(self, number: int) -> Path:
        """The folder of one fold's training."""
        return self.root / f"fold{number}"

    def last(self, number: int) -> Path:
        """The state of a fold's training, to resume it."""
        return self.fold(number) / "last.pt"

    def best(self, number: int) -> Path:
        """The best weights of a fold."""
        return self.fold(number) / "best.safetensors"

    def history(self, number: int) -> Path:
        """The epochs of a fold, one JSON object per line."""
        return self.fold(number) / "history.jsonl"

    @property
    def oof(self) -> Path:
        """The out-of-fold masks."""
        return self.root / "oof.csv.gz"

    @property
    def oof_scores(self) -> Path:
        """Scores of the out-of-fold masks: img,car,view,fold,dice,iou."""
        return self.root / "oof_scores.csv"

    @property
    def cv(self) -> Path:
        """The cross-validation score."""
        return self.root / "cv.json"

    @property
    def predictions(self) -> Path:
        """The folders with the masks of other data."""
        return self.root / "predictions"

    @property
    def pushing(self) -> Path:
        """Which submission file is being uploaded; removed when the upload has ended."""
        return self.root / "submission.pushing.json"

    def pseudo(self, number: int) -> Path:
        """Pseudo-labels that the networks of a fold make."""
        return self.root / "pseudo" / f"fold{number}.csv.gz"

    def learned_pseudo(self, number: int) -> Path:
        """The pseudo-labels in a fold's training set, a copy: training resumes with the same labels."""
        return self.fold(number) / "pseudo.csv.gz"

    @property
    def oof_shards(self) -> Path:
        """The finished parts of a score that is not complete."""
        return self.root / "oof"

    @property
    def pseudo_shards(self) -> Path:
        """The finished parts of pseudo-labels that are not complete."""
        return self.root / "pseudo" / "shards"

    @property
    def cutouts(self) -> Path:
        """The photos that were cut out, unless the user names another folder."""
        return self.root / "cutouts"

    @property
    def model_card(self) -> Path:
        """The description of a packed run."""
        return self.root / "README.md"

    @property
    def checksums(self) -> Path:
        """The SHA-256 of each file of a packed run."""
        return self.root / "SHA256SUMS"

    @property
    def packed(self) -> Path:
        """The zip file that ``make pack`` writes."""
        return self.root.with_name(f"{self.name}.zip")

    def exported(self, fold: int | None = None) -> Path:
        """The ONNX file of all trained folds, or of one."""
        return self.root / f"{self.name}{'' if fold is None else f'-fold{fold}'}.onnx"

    @property
    def trial_export(self) -> Path:
        """Whether onnxruntime can compute the networks."""
        return self.root / "engine.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"


def run_at(name: str) -> RunFolder:
    """Return the run with a name in runs/, or at a path."""
    return RunFolder(Path(name) if "/" in name else RUNS / name)


@dataclass(frozen=True)
class OtherData(Predicted):
    """The paths of the masks of data that is not the run's own.

    Attributes:
        run: the run that predicts.
        data: the data folder, as the user names it.
    """

    run: RunFolder
    data: Path

    @property
    def source(self) -> Path:
        """Which data folder the masks are of."""
        return self.root / "data.json"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of make that name the run and the data."""
        return {"RUN": self.run.called, "DATA": str(self.data)}


def variables_of(folder: Path) -> dict[str, str]:
    """The variables of make for the files of a folder of a run, where the path of other data is not known."""
    if folder.parent.name == RunFolder(Path()).predictions.name:
        return {"RUN": RunFolder(folder.parent.parent).called, "DATA": "..."}
    return RunFolder(folder).variables
