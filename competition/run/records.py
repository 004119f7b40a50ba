"""The records of a run: what its JSON files hold, each with one typed model that reads and writes it.

No other module spells the keys of these files. A record is read once per command and passed on as an object.
"""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from competition.command import Failure, os_reason
from competition.data_folder import DataFolder
from competition.files import read_json, write_json, write_text
from competition.run.folder import RunFolder
from competition.settings.resolve import to_yaml
from competition.settings.schema import Settings

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "opencv-python-headless")


class Record(BaseModel):
    """A JSON object in a file; unknown keys are an error, because the file is then of another version."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            Failure: the file is missing, damaged, or of another version.
        """
        content = read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Failure(
                f"{path} is damaged or of another version ({where}: {first['msg']}); put it back, or remove it and "
                "run the command that writes it again"
            ) from error

    @classmethod
    def read_if_exists(cls, path: Path) -> Self | None:
        """Read a record, or return None if there is no such file."""
        return cls.read(path) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Write the record atomically; fields that are None are left out."""
        write_json(path, self.model_dump(mode="json", exclude_none=True))


class Environment(Record):
    """environment.json: where, with which versions and from which data a run was made.

    Attributes:
        created: UTC, ISO 8601.
        data: the data folder, absolute.
        fingerprint: hash of the training photos' names and sizes.
        device: the device, for people.
        packages: version of each package, None if it is not installed.
        git: the commit, with ``+`` if the working tree was changed.
        runs: the members of a combined run (``RUNS="a b"``); empty for a trained run.
    """

    created: str
    data: str
    fingerprint: str
    device: str
    python: str
    platform: str
    packages: dict[str, str | None]
    git: str | None = None
    runs: list[str] = []


class FoldScore(Record):
    """The CV of one fold: mean Dice and IoU of its images, and the choices made on the other folds."""

    fold: int
    cars: int
    images: int
    dice: float
    iou: float
    threshold: float
    member_weights: dict[str, float] | None = None


class ThresholdTuning(Record):
    """What tuning the threshold on the other folds gives: the best threshold over all images, and the CV with it."""

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
        what: a part, or parts that predict together.
        dice: the mean Dice of all images.
        over: the row that it is compared with; empty if the row stands for itself, and the next three are None.
        gain: the difference of the means.
        spread: the standard deviation of the gains of the folds.
        folds: the number of folds that gain.
        note: how it was chosen and whether it is used; empty if that is not a question.
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
        spread: standard deviation of the folds' Dice; spread_iou of their IoU.
        threshold: of the test set.
        tta: the test-time augmentations.
        member_weights: weight of each member for the test set; None for a single run.
        checkpoints: path to SHA-256 of the weights that were scored.
    """

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

    def fold(self, number: int) -> FoldScore | None:
        """The score of one fold, if it is there."""
        return next((each for each in self.folds if each.fold == number), None)


class SubmissionRecord(Record):
    """submission.json: what made a submission.

    Attributes:
        key: hash of all other fields but the last.
        images: number of images; folds and networks likewise.
        data: the data folder, absolute.
        photos: hash of the photos' names and sizes.
        member_weights: weight of each run that predicts.
        checkpoints: path to SHA-256 of the weights.
        sha256: of the submission file.
    """

    key: str
    images: int
    folds: int
    networks: int
    tta: list[str]
    precision: str
    compile: bool
    device: str
    threads: int | None = None
    batch_size: int
    shard: int
    data: str
    photos: str
    member_weights: dict[str, float]
    threshold: float
    checkpoints: dict[str, str]
    sha256: str


class Validated(Record):
    """The stamp of a valid submission: its hash, and the hash and number of the names it was validated for."""

    sha256: str
    names: str
    rows: int


class Pushing(Record):
    """The submission whose upload has begun; it may have been submitted even if the reply was lost."""

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


def read_history(path: Path) -> list[Epoch]:
    """The epochs of a fold; empty if there is no file.

    Raises:
        Failure: the file cannot be read, or a line is not an epoch.
    """
    if not path.is_file():
        return []
    epochs = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise Failure(f"cannot read {path}: {reason}") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            epochs.append(Epoch.model_validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise Failure(f"{path} line {number} is not an epoch ({reason}); remove the file, or the fold") from error
    return epochs


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write the epochs of a fold, one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(epoch.model_dump()) + "\n" for epoch in epochs))


def record_run(run: RunFolder, settings: Settings, data: DataFolder, device: str) -> None:
    """Write settings.yaml and environment.json of a new run; an existing run keeps its own.

    The settings are written last: a run exists from the moment its settings do.
    """
    if run.settings.is_file():
        return
    Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=str(data.root.resolve()),
        fingerprint=data.fingerprint,
        device=device,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        git=git_revision(),
    ).write(run.environment)
    write_text(run.settings, to_yaml(settings))


def require_same_data(run: RunFolder, data: DataFolder) -> None:
    """Raise a Failure unless the training photos are those that the run was made from."""
    made_from = Environment.read(run.environment)
    if made_from.fingerprint != data.fingerprint:
        raise Failure(
            f"the training photos in {data.root} are not those that run {run.name} was made from "
            f"({made_from.data}): names or file sizes differ; name that folder with DATA=..., or use another RUN"
        )


def git_revision() -> str | None:
    """The commit of the working tree, with ``+`` if it is changed; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
