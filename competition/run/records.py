"""The records of a run: one typed model for each of its JSON files.

Only this module knows the keys of these files. A command reads a record once and passes the object on.
"""

import json
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from competition.command import Failure, os_reason
from competition.files import json_text, read_json, write_text
from competition.hint import hint
from competition.run.folder import DEFAULT_DATA, RunFolder, variables_of
from competition.settings.schema import Network


class Record(BaseModel):
    """A JSON object in a file. Unknown keys are errors: another version of this project has written the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    # What to do about a damaged file; {score}, {predict} and {validate} are commands.
    advice: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record; raise a Failure if the file is missing, damaged, or from another version."""
        variables = variables_of(path.parent)
        advice = cls.advice.format(**{name: hint(name, **variables) for name in ("score", "predict", "validate")})
        content = read_json(path, advice)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise Failure(f"{path} is damaged or from another version ({key}: {first['msg']}); {advice}") from error

    @classmethod
    def read_if_exists(cls, path: Path) -> Self | None:
        """Read a record, or return None if there is no such file."""
        return cls.read(path) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Write the record atomically; fields that are None are left out."""
        write_text(path, self.text)

    @property
    def text(self) -> str:
        """The content of the file."""
        return json_text(self.model_dump(mode="json", exclude_none=True))


class Environment(Record):
    """environment.json: the device, the versions and the data that a run was made with.

    Attributes:
        created: UTC, ISO 8601.
        data: the data folder, absolute; only its name in a run that was packed to be shared.
        fingerprint: hash of the training photos' names and sizes.
        masks: hash of the files with the masks and of the limits of their areas, which were checked; None if not.
        device: name of the device.
        packages: version of each package, None if it is not installed.
        git: the commit, with ``+`` if the working tree was changed.
        runs: the members of a combined run (``RUNS="a b"``); empty for a trained run.
    """

    advice: ClassVar[str] = "restore it from a copy, or use another RUN"

    created: str
    data: str
    fingerprint: str
    masks: str | None = None
    device: str
    python: str
    platform: str
    packages: dict[str, str | None]
    git: str | None = None
    runs: list[str] = []

    @property
    def folder(self) -> Path:
        """The data folder; one that is known by its name is looked for beside the default one."""
        return DEFAULT_DATA.parent / self.data

    @property
    def shared(self) -> "Environment":
        """The same without the path of the data folder, which tells about the machine and its user."""
        return self.model_copy(update={"data": PurePath(self.data).name})


class FoldScore(Record):
    """Mean Dice and IoU of the images of a fold, with the threshold and weights chosen on the other folds."""

    fold: int
    cars: int
    images: int
    dice: float
    iou: float
    threshold: float
    member_weights: dict[str, float] | None = None


class ThresholdTuning(Record):
    """Result of tuning the threshold.

    Attributes:
        threshold: the best one over all images.
        dice: mean Dice when each fold uses the threshold chosen on the other folds.
        dice_at_half: mean Dice with threshold 0.5.
        gain: the difference of the two.
        used: whether the test set is predicted with the tuned threshold.
    """

    threshold: float
    dice: float
    dice_at_half: float
    gain: float
    used: bool


class ThresholdCurve(Record):
    """Mean Dice of all images at every threshold."""

    thresholds: list[float]
    dice: list[float]


class Gain(Record):
    """A row of the table of gains.

    Attributes:
        what: a component, or components that predict together.
        dice: the mean Dice of all images.
        over: the row that this one is compared with; empty if none, and then gain, spread and folds are None.
        gain: the difference of the two mean Dice.
        spread: the standard deviation over the folds of their gains.
        folds: the number of folds that gain.
        note: how it was chosen and whether it is used; may be empty.
    """

    what: str
    dice: float
    over: str = ""
    gain: float | None = None
    spread: float | None = None
    folds: int | None = None
    note: str = ""


class CV(Record):
    """cv.json: the cross-validation score of a run, per fold and over all images.

    Attributes:
        spread: standard deviation of the folds' Dice; ``spread_iou`` of their IoU.
        threshold: the threshold for the test set.
        tta: the test-time augmentations.
        member_weights: weight of each member for the test set; None for a single run.
        checkpoints: SHA-256 of each weights file that was scored, by its path.
        engine: what computed the networks; torch in records from before there was a choice.
        key: hash of everything that decides the scores; None in files of earlier versions.
        sha256: of oof.csv.gz and oof_scores.csv, by their names.
    """

    advice: ClassVar[str] = "write it again: {score}"

    dice: float
    iou: float
    spread: float
    spread_iou: float
    images: int
    cars: int
    threshold: float
    tta: list[str]
    folds: list[FoldScore]
    member_weights: dict[str, float] | None = None
    tuning: ThresholdTuning
    curve: ThresholdCurve
    gains: list[Gain]
    checkpoints: dict[str, str]
    engine: str = "torch"
    key: str | None = None
    sha256: dict[str, str] = {}

    def fold(self, number: int) -> FoldScore | None:
        """Return the score of one fold; None if it has not been scored."""
        return next((each for each in self.folds if each.fold == number), None)


class SubmissionFacts(Record):
    """Everything that decides the bytes of a submission.

    Attributes:
        images: number of images; folds and networks likewise.
        photos: hash of the photos' names and sizes.
        engine: what computed the networks; torch in records from before there was a choice.
        member_weights: weight of each run that predicts.
        checkpoints: SHA-256 of each weights file, by its path.
    """

    images: int
    folds: int
    networks: int
    tta: list[str]
    engine: str = "torch"
    precision: str
    compile: bool
    device: str
    threads: int | None = None
    batch_size: int
    shard: int
    photos: str
    member_weights: dict[str, float]
    threshold: float
    checkpoints: dict[str, str]


class SubmissionRecord(SubmissionFacts):
    """submission.json: what made a submission.

    Attributes:
        data: the data folder, absolute.
        key: hash of the facts.
        sha256: of the submission file.
    """

    advice: ClassVar[str] = "remove it and write it again: {predict}"

    data: str
    key: str
    sha256: str


class PredictedData(Record):
    """data.json of predictions/<name>/: the data folder whose masks are there, absolute."""

    advice: ClassVar[str] = "remove its folder and predict again: {predict}"

    data: str


class Validated(Record):
    """The stamp of a valid submission: its hash, and the hash and number of the names it was validated for."""

    advice: ClassVar[str] = "write it again: {validate}"

    sha256: str
    names: str
    rows: int


class Pushing(Record):
    """The submission whose upload has begun; it may have been submitted even if the reply was lost."""

    advice: ClassVar[str] = "find out on Kaggle's page whether the file was submitted; if not, remove this record"

    sha256: str


class Epoch(Record):
    """A line of history.jsonl; ``dice`` and ``iou`` are None in an epoch that was not validated."""

    epoch: int
    lr: float
    loss: float
    seconds: float
    images_per_second: float
    dice: float | None = None
    iou: float | None = None
    best: bool = False


class TrialExport(Record):
    """engine.json: whether onnxruntime can compute a network, tried with an untrained copy.

    Attributes:
        network: the settings of the network.
        packages: version of each package that decides it, None if it is not installed.
        problem: why onnxruntime cannot; empty if it can.
    """

    advice: ClassVar[str] = "remove it"

    network: Network
    packages: dict[str, str | None]
    problem: str


def read_history(path: Path) -> list[Epoch]:
    """Read the epochs of a fold, ``fold<n>/history.jsonl`` of a run; empty if there is no file."""
    if not path.is_file():
        return []
    run, fold = RunFolder(path.parent.parent), path.parent.name.removeprefix("fold")
    advice = f"remove it and write it again: {hint('train', FOLD=fold, RUN=run.called)}"
    try:
        # Only \n ends a line: str.splitlines would also split at separators inside a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except ValueError as error:
        raise Failure(f"cannot read {path}: {error}; {advice}") from error
    epochs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            epochs.append(Epoch.model_validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise Failure(f"{path} line {number} is not an epoch ({reason}); {advice}") from error
    return epochs


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write the epochs of a fold, one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(epoch.model_dump()) + "\n" for epoch in epochs))
