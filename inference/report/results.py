"""What a run's files say of its scores: read, and checked against each other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from competition.command import Failure, os_reason
from competition.data_folder import DataFolder
from competition.files import read_json
from competition.run.folder import SCORE_COLUMNS, RunFolder, run_at
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Settings

# What of an epoch is shown, and its type: one that was not validated has a Dice of NaN, a gap in the curve.
EPOCH = {"epoch": int, "loss": float, "seconds": float, "dice": float, "best": bool}
# Of what `make score` writes into cv.json.
CV = ["dice", "iou", "spread", "threshold", "views", "folds", "tuning", "curve", "gains"]
# The scores are written with six digits; what differs by more comes from another call.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Member:
    """A trained run whose networks have answered.

    Args:
        run: its folder.
        weight: how much it counts in the answer for the test set.
        settings: its settings.
        environment: its environment.json.
        histories: fold to a table of its epochs (epoch, loss, dice, best), for the folds that have one.
    """

    run: RunFolder
    weight: float
    settings: Settings
    environment: dict[str, Any]
    histories: dict[int, pd.DataFrame]


@dataclass(frozen=True)
class Results:
    """A scored run.

    Args:
        run: its folder.
        cv: cv.json.
        scores: img, car, view, fold, dice, iou of every training image, and year, make, model ("" where unknown).
        members: the runs that have answered together; one that has answered alone is its own.
    """

    run: RunFolder
    cv: dict[str, Any]
    scores: pd.DataFrame
    members: list[Member]

    @property
    def folds(self) -> list[int]:
        """All folds of the split: `make score` scores all or none."""
        return [int(fold["fold"]) for fold in self.cv["folds"]]


def read_results(run: RunFolder, data: DataFolder) -> Results:
    """Read everything but the masks.

    Raises:
        Failure: a file is missing, damaged, or of another call than the others; the line says which command
            makes it.
    """
    for path in (run.cv, run.oof_scores, run.oof):
        if not path.is_file():
            raise Failure(f"no {path}; it comes from scoring the trained folds: make score RUN={run.called}")
    scores = _scores(run)
    cv = _cv(run, scores)
    described = scores.join(_described(data), on="car")
    described[["year", "make", "model"]] = described[["year", "make", "model"]].fillna("")
    return Results(run, cv, described, _members(run, cv))


def _scores(run: RunFolder) -> pd.DataFrame:
    """The scores of the images, of which there is at least one."""
    path = run.oof_scores
    try:
        # A car such as 000000123456 or 1234567890e1 is a name; left to itself pandas would make a number of it.
        table = pd.read_csv(path, dtype={"img": str, "car": str}, keep_default_na=False)[SCORE_COLUMNS]
        numeric = [name for name in SCORE_COLUMNS if name not in ("img", "car")]
        table[numeric] = table[numeric].apply(pd.to_numeric)
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (ValueError, KeyError) as error:
        what = f"a table of {','.join(SCORE_COLUMNS)}"
        raise Failure(f"{path} is not {what} ({error}); make score RUN={run.called} writes it again") from error
    if table.empty:
        raise Failure(f"{path} has no rows; make score RUN={run.called} writes it again")
    return table


def _cv(run: RunFolder, scores: pd.DataFrame) -> dict[str, Any]:
    """cv.json, which must be about the same images as oof_scores.csv."""
    cv = read_json(run.cv)
    lacking = [name for name in CV if name not in cv]
    if lacking:
        raise Failure(f"{run.cv} has no {lacking[0]!r}; make score RUN={run.called} writes it again")
    for name in ("dice", "iou"):
        mean = scores[name].mean()
        if abs(mean - cv[name]) > ROUNDING:
            raise Failure(
                f"{run.cv} says {name} {cv[name]:.5f}, but {run.oof_scores.name} has the mean {mean:.5f}: they come "
                f"from different calls; make score RUN={run.called} writes both"
            )
    return cv


def _members(run: RunFolder, cv: dict[str, Any]) -> list[Member]:
    """The runs that have answered, in the order in which they were named."""
    names = read_json(run.environment).get("runs", [])
    if not names:
        return [_member(run, 1.0, cv)]
    weights = cv.get("weights", {})
    if list(weights) != names:
        raise Failure(
            f"{run.cv} has no weights of {' and '.join(names)}; make score RUN={run.called} writes it again"
        )
    return [_member(run_at(name), weights[name], cv) for name in names]


def _member(run: RunFolder, weight: float, cv: dict[str, Any]) -> Member:
    folds = [int(fold["fold"]) for fold in cv["folds"]]
    histories = {fold: _history(run.history(fold)) for fold in folds if run.history(fold).is_file()}
    known = {fold: table for fold, table in histories.items() if len(table)}
    return Member(run, weight, resolve(load_yaml(run.settings)), read_json(run.environment), known)


def _described(data: DataFolder) -> pd.DataFrame:
    """year, make, model by car; columns that metadata.csv lacks are empty."""
    return data.metadata.reindex(columns=["year", "make", "model"])


def _history(path: Path) -> pd.DataFrame:
    """A fold's epochs."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append({name: row[name] for name in EPOCH})
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(
                f"{path} line {number} is not an epoch of a training ({error}); remove the line to do without it"
            ) from error
    return pd.DataFrame(rows, columns=list(EPOCH)).astype(EPOCH)
