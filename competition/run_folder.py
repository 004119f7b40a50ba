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

import json
import platform
import subprocess
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from competition import atomic
from competition.command import Failure, os_reason
from competition.data_folder import DataFolder
from competition.settings import (
    Settings,
    flat,
    load_preset,
    load_yaml,
    merge,
    parse_assignments,
    resolve,
    to_yaml,
)

RUNS = Path("runs")
# Settings that name another run to learn from, which must have the same split.
SOURCES = ("network.init_from", "data.pseudo")
DEFAULT_DATA = Path("data/carvana")
# What may differ from one call to the next, because it does not change what the training computes.
FREE = ("inference.", "train.workers", "train.cache", "train.save_seconds")
SCORE_COLUMNS = ["img", "car", "view", "fold", "dice", "iou"]  # of oof_scores.csv
PACKAGES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "opencv-python-headless")


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
        """The test set's masks."""
        return self.root / "submission.csv.gz"

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


def add_run_arguments(parser: ArgumentParser) -> None:
    """The options by which a stage finds its run, its data and its settings."""
    parser.add_argument("--run", default="default", help="name of the run, a folder below runs/, or a path")
    parser.add_argument("--data", type=Path, help="data folder; by default the run's own, else data/carvana")
    parser.add_argument("--preset", help="preset, by name or as a .yaml file; by default the run's own settings")
    parser.add_argument("--settings", type=Path, help="a .yaml file of settings over the preset")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings over both, such as train.epochs=50",
    )


def run_at(name: str) -> RunFolder:
    """The run of that name below runs/, or at that path."""
    return RunFolder(Path(name) if "/" in name else RUNS / name)


def source_of(settings: Settings, setting: str) -> RunFolder | None:
    """The run that a setting names, None where it says none; raises Failure if that run has no split."""
    name = flat(settings)[setting]
    if name == "none":
        return None
    source = run_at(name)
    if not source.folds.is_file():
        raise Failure(
            f"no split {source.folds} of the run that {setting} names; train that one first: "
            f"make cv RUN={source.called}"
        )
    return source


def split_source(settings: Settings) -> RunFolder | None:
    """The run whose split a new run takes, because it will learn from what that one has learned; None makes its own.

    Raises:
        Failure: it names two, and their splits differ.
    """
    sources = [source for setting in SOURCES if (source := source_of(settings, setting))]
    if len({source.folds.read_bytes() for source in sources}) > 1:
        raise Failure(
            f"{' and '.join(SOURCES)} name runs of different splits; what one has learned has seen the cars that the "
            "other holds out; name runs of one split"
        )
    return sources[0] if sources else None


def open_run(arguments: Namespace, default_preset: str | None = None) -> tuple[RunFolder, Settings, DataFolder]:
    """The run that the command line names, with its settings and its data.

    Args:
        arguments: what a parser with ``add_run_arguments`` parsed.
        default_preset: what a new run is made from when the command line names no preset; None where the stage
            needs a run that exists.

    Raises:
        Failure: the run does not exist, or exists with other settings (the difference is shown), or a setting is
            wrong, or there is no data folder.
    """
    run = run_at(arguments.run)
    if run.settings.is_file():
        settings = _settings_of_existing(run, arguments)
        return run, settings, data_of(run, arguments.data, settings)
    if default_preset is None:
        raise Failure(f"no run {run.root}; train it first: make train FOLD=0 RUN={run.called}")
    settings = resolve(_asked_for(arguments, default_preset))
    return run, settings, data_of(run, arguments.data, settings)


def data_of(run: RunFolder, asked: Path | None, settings: Settings | None = None) -> DataFolder:
    """The data folder that is asked for, else the one that the run was made from, else the default.

    Args:
        run: the run.
        asked: what the command line names.
        settings: of the run; None reads them, where there are any.

    Raises:
        Failure: there is no such folder, or a file of the run is damaged.
    """
    if asked is None and run.environment.is_file():
        known = read_json(run.environment).get("data")
        asked = Path(known) if known else None
    if settings is None:
        settings = resolve(load_yaml(run.settings) if run.settings.is_file() else {})
    return DataFolder(asked or DEFAULT_DATA, hq=settings.data.hq)


def record(run: RunFolder, settings: Settings, data: DataFolder, device: str) -> None:
    """Write settings.yaml and environment.json of a new run; an existing run keeps its own.

    The settings come last: a run exists from the moment its settings do.
    """
    if run.settings.is_file():
        return
    environment = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(data.root.resolve()),
        "fingerprint": data.fingerprint,
        "device": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_revision(),
    }
    atomic.write_json(run.environment, environment)
    atomic.write_text(run.settings, to_yaml(settings))


def require_same_data(run: RunFolder, data: DataFolder) -> None:
    """Raise a Failure unless the training set is the one that the run was made from."""
    made_from = read_json(run.environment)
    if not {"fingerprint", "data"} <= made_from.keys():
        raise Failure(f"{run.environment} does not say which data the run was made from; use another RUN")
    if made_from["fingerprint"] != data.fingerprint:
        raise Failure(
            f"the training photographs in {data.root} are not those that run {run.name} was made from "
            f"({made_from['data']}): names or file sizes differ; name that folder with DATA=..., or use another RUN"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises Failure where it is missing or damaged."""
    again = "put it back, or remove it and give the command that writes it again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}; {again}") from error
    if not isinstance(content, dict):
        raise Failure(f"{path} holds no JSON object; {again}")
    return content


def git_revision() -> str | None:
    """The commit of the working tree, with ``+`` where it is changed; None outside a git checkout."""
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


def _asked_for(arguments: Namespace, preset: str) -> dict[str, Any]:
    """Preset < file < SET, as nested dicts."""
    return merge(
        load_preset(arguments.preset or preset),
        load_yaml(arguments.settings) if arguments.settings else {},
        parse_assignments(arguments.set),
    )


def _settings_of_existing(run: RunFolder, arguments: Namespace) -> Settings:
    stored = load_yaml(run.settings)
    if not stored:
        raise Failure(f"{run.settings} is empty; put back what the run was made with, or use another RUN")
    try:
        own = resolve(stored)
    except Failure as problem:
        raise Failure(
            f"{run.settings}: {problem}; the run needs the version that made it, or use another RUN"
        ) from problem
    if arguments.preset:
        asked = resolve(_asked_for(arguments, arguments.preset))
    else:
        over = load_yaml(arguments.settings) if arguments.settings else {}
        asked = resolve(merge(stored, over, parse_assignments(arguments.set)))
    if asked.train.batch_size == "auto":  # whatever number that was when the run began
        asked = asked.with_batch_size(own.train.batch_size)
    if any(flat(own)[setting] != "none" for setting in SOURCES):  # its split is that run's
        asked = asked.with_folds(own.split.folds)
    before, now = flat(own), flat(asked)
    changed = [name for name in now if now[name] != before[name] and not name.startswith(FREE)]
    if changed:
        difference = ", ".join(f"{name} is {before[name]}, asked for {now[name]}" for name in changed)
        raise Failure(
            f"run {run.name} was made with other settings: {difference}; name a new RUN for them, or leave PRESET "
            "and SET away to go on with the run's own"
        )
    return asked


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
