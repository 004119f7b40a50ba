"""The results of a run: read from its files, and checked against each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from competition import csv_file
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.hint import hint
from competition.run.folder import SCORE_COLUMNS, RunFolder, run_at
from competition.run.records import CV, Environment, Epoch, read_history
from competition.settings.resolve import load_settings
from competition.settings.schema import Settings
from folds.split import read_folds

# The columns of a table of epochs. An epoch without validation has a Dice of NaN, a gap in the curve.
EPOCH = {"epoch": int, "loss": float, "seconds": float, "dice": float, "best": bool}
# Scores are written with six digits. A larger difference means that the files come from different calls.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Member:
    """A trained run whose networks have predicted.

    Attributes:
        run: its folder.
        weight: its member weight for the test set.
        settings: its settings.
        environment: its environment.json.
        histories: fold to a table of its epochs (epoch, loss, dice, best), for the folds that have one; the epochs of
            a first stage come first, and the numbers go on.
    """

    run: RunFolder
    weight: float
    settings: Settings
    environment: Environment
    histories: dict[int, pd.DataFrame]


@dataclass(frozen=True)
class Results:
    """A scored run.

    Attributes:
        run: its folder.
        cv: cv.json.
        scores: img, car, view, fold, dice, iou of every training image, and year, make, model ("" where unknown).
        members: the runs that predict together; for a single run, the run itself.
    """

    run: RunFolder
    cv: CV
    scores: pd.DataFrame
    members: list[Member]

    @property
    def folds(self) -> list[int]:
        """All folds of the split: `make score` scores all or none."""
        return [fold.fold for fold in self.cv.folds]


def read_results(run: RunFolder, data: DataFolder) -> Results:
    """Read everything but the masks."""
    for path in (run.cv, run.oof_scores, run.oof):
        if not path.is_file():
            raise Failure(f"no {path}; {_how_to_score(run)}")
    scores = _scores(run)
    cv = _cv(run, scores)
    described = scores.join(_described(data), on="car")
    described[["year", "make", "model"]] = described[["year", "make", "model"]].fillna("")
    return Results(run, cv, described, _members(run, cv))


def _how_to_score(run: RunFolder) -> str:
    """What a run without a CV needs; a score needs all folds."""
    if Environment.read(run.environment).runs:  # the networks are in other runs
        return f"score the runs first: {hint('score', RUN=run.called)}"
    folds = sorted(set(read_folds(run.folds).values()))
    trained = [fold for fold in folds if run.best(fold).is_file()]
    missing = [str(fold) for fold in folds if fold not in trained]
    if not missing:
        return f"score the trained folds first: {hint('score', RUN=run.called)}"
    verb = f"folds {', '.join(missing)} are" if len(missing) > 1 else f"fold {missing[0]} is"
    advice = f"{verb} not trained; {hint('cv', RUN=run.called)} trains and scores them"
    for fold in trained[:1]:
        advice += f"; to score fold {fold} alone: python -m inference.evaluate --model {run.best(fold)}"
    return advice


def _scores(run: RunFolder) -> pd.DataFrame:
    """The scores of at least one image."""
    path = run.oof_scores
    again = f"{hint('score', RUN=run.called)} writes it again"
    header, lines = csv_file.read(path, advice=again)
    try:
        table = pd.DataFrame([line.fields for line in lines], columns=header, dtype=str)[SCORE_COLUMNS]
        # The cars stay text: some look like numbers, such as 000000123456 or 1234567890e1.
        numeric = [name for name in SCORE_COLUMNS if name not in ("img", "car")]
        table[numeric] = table[numeric].apply(pd.to_numeric)
    except (ValueError, KeyError) as error:
        raise Failure(f"{path} is not a table of {','.join(SCORE_COLUMNS)} ({error}); {again}") from error
    if table.isna().any(axis=None):
        raise Failure(f"{path} has an empty field; {again}")
    if table.empty:
        raise Failure(f"{path} has no rows; {again}")
    return table


def _cv(run: RunFolder, scores: pd.DataFrame) -> CV:
    """cv.json, whose means must be those of oof_scores.csv."""
    cv = CV.read(run.cv)
    for name, value in (("dice", cv.dice), ("iou", cv.iou)):
        mean = scores[name].mean()
        if abs(mean - value) > ROUNDING:
            raise Failure(
                f"{run.cv} says {name} {value:.5f}, but {run.oof_scores.name} has the mean {mean:.5f}: they come "
                f"from different calls; {hint('score', RUN=run.called)} writes both"
            )
    return cv


def _members(run: RunFolder, cv: CV) -> list[Member]:
    """The runs that predict together, in the order in which they were named."""
    environment = Environment.read(run.environment)
    names = environment.runs
    if not names:
        return [_member(run, environment, 1.0, cv)]
    weights = cv.member_weights or {}
    if list(weights) != names:
        raise Failure(
            f"{run.cv} has no member weights of {' and '.join(names)}; "
            f"{hint('score', RUN=run.called)} writes it again"
        )
    members = {name: run_at(name) for name in names}
    return [_member(each, Environment.read(each.environment), weights[name], cv) for name, each in members.items()]


def _member(run: RunFolder, environment: Environment, weight: float, cv: CV) -> Member:
    histories = {fold.fold: _history(run, fold.fold) for fold in cv.folds}
    tables = {fold: _table(epochs) for fold, epochs in histories.items() if epochs}
    return Member(run, weight, load_settings(run.settings), environment, tables)


def _history(run: RunFolder, fold: int) -> list[Epoch]:
    """The epochs of a fold after those of its first stage, numbered through."""
    first = read_history(run.first_stage.history(fold))
    own = read_history(run.history(fold))
    return first + [epoch.model_copy(update={"epoch": len(first) + epoch.epoch}) for epoch in own]


def _described(data: DataFolder) -> pd.DataFrame:
    """year, make, model by car; columns that metadata.csv lacks are empty."""
    return data.metadata.reindex(columns=["year", "make", "model"])


def _table(epochs: Sequence[Epoch]) -> pd.DataFrame:
    """The epochs of a fold as a table with the columns of ``EPOCH``."""
    rows = [epoch.model_dump(include=set(EPOCH)) for epoch in epochs]
    return pd.DataFrame(rows, columns=list(EPOCH)).astype(EPOCH)
