"""The numbers of the page: a summary, and scores by fold, by view, by make and by car."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from competition.grouping import UNKNOWN_VIEW
from inference.report.results import Member, Results

MOST_VIEWS = 24  # columns that fit a screen; of more views the worst are shown
WORST_PART = 0.1  # of the images, whose part of the error is in the summary


@dataclass(frozen=True)
class Summary:
    """Where the error is; the error of an image is 1 - Dice.

    Attributes:
        worst: number of the worst images, a tenth of all.
        worst_share: their part of the sum of all errors.
        missed_share: the part of the wrong pixels of all images that are missed, the others being extra; None if no
            pixel is wrong.
    """

    worst: int
    worst_share: float
    worst_img: str
    worst_dice: float
    missed_share: float | None


@dataclass(frozen=True)
class Training:
    """The training of one fold; the best epoch is the one whose weights are used, None if none is validated."""

    fold: int
    epochs: int
    loss: float
    best_epoch: int | None
    dice: float | None


@dataclass(frozen=True)
class FoldRow:
    """One fold; ``epochs`` lists those of each member, ``weights`` the member weights in this fold."""

    fold: int
    cars: int
    images: int
    epochs: str
    weights: str
    dice: float
    iou: float
    threshold: float
    worst_img: str
    worst_dice: float


@dataclass(frozen=True)
class Cell:
    """The mean Dice of some images, and its shade from 0 (best cell of the table) to 1 (worst)."""

    dice: float | None
    images: int
    shade: float = 0.0


@dataclass(frozen=True)
class ViewTable:
    """Mean Dice by fold and view; ``left_out`` is the number of better views that are not shown."""

    views: list[int]
    rows: list[tuple[str, list[Cell]]]
    left_out: int


@dataclass(frozen=True)
class GroupRow:
    """The images of one make or one car; ``error`` is 1 - Dice, relative to the largest of the table."""

    name: str
    detail: str
    cars: int
    images: int
    dice: float
    iou: float
    error: float


def summary(scores: pd.DataFrame, measured: pd.DataFrame) -> Summary:
    """Where the error is; ``measured`` has the missed and extra pixels of each image."""
    error = 1 - scores["dice"].sort_values()
    count = max(1, round(WORST_PART * len(error)))
    worst, wrong = _worst(scores), measured[["missed", "extra"]].to_numpy().sum()
    return Summary(
        count,
        float(error.iloc[:count].sum() / error.sum()) if error.sum() else 0.0,
        worst["img"],
        worst["dice"],
        float(measured["missed"].sum() / wrong) if wrong else None,
    )


def trainings(histories: dict[int, pd.DataFrame]) -> list[Training]:
    """A row for each fold that has a history."""
    rows = []
    for fold, table in histories.items():
        last, best = table.iloc[-1], table[table["best"]].tail(1)
        kept = (int(best["epoch"].item()), float(best["dice"].item())) if len(best) else (None, None)
        rows.append(Training(fold, int(last["epoch"]), float(last["loss"]), *kept))
    return rows


def several_epochs(histories: dict[int, pd.DataFrame], column: str) -> bool:
    """Whether a fold has values of more than one epoch, so that there is a line to draw."""
    return any(table[column].count() > 1 for table in histories.values())


def by_fold(results: Results) -> list[FoldRow]:
    """A row for every fold of the split."""
    rows = []
    for score in results.cv.folds:
        fold = score.fold
        scores = results.scores[results.scores["fold"] == fold]
        worst = _worst(scores)
        rows.append(
            FoldRow(
                fold,
                cars=scores["car"].nunique(),
                images=len(scores),
                epochs=", ".join(_epochs(member, fold) for member in results.members),
                weights=", ".join(f"{weight:.3g}" for weight in (score.member_weights or {}).values()),
                dice=scores["dice"].mean(),
                iou=scores["iou"].mean(),
                threshold=score.threshold,
                worst_img=worst["img"],
                worst_dice=worst["dice"],
            )
        )
    return rows


def _epochs(member: Member, fold: int) -> str:
    history = member.histories.get(fold)
    return "–" if history is None or history.empty else str(history["epoch"].max())


def by_view(scores: pd.DataFrame) -> ViewTable | None:
    """Mean Dice of each view, by fold and over all folds; None if there is only one view, or none."""
    scores = scores[scores["view"] != UNKNOWN_VIEW]
    means = scores.groupby("view")["dice"].mean()
    if len(means) < 2:
        return None
    views = sorted(int(view) for view in means.sort_values(kind="stable").index[:MOST_VIEWS])
    parts = [("all folds", scores)]
    parts += [(f"fold {fold}", part) for fold, part in scores.groupby("fold")]
    rows = [(name, [_cell(part[part["view"] == view]) for view in views]) for name, part in parts]
    values = [cell.dice for _, cells in rows for cell in cells if cell.dice is not None]
    best, worst = max(values), min(values)
    shaded = [(name, [_shaded(cell, best, worst) for cell in cells]) for name, cells in rows]
    return ViewTable(views, shaded, left_out=len(means) - len(views))


def by_make(scores: pd.DataFrame) -> list[GroupRow]:
    """The makes, the worst first; empty without metadata."""
    if not (scores["make"] != "").any():
        return []
    named = scores.assign(make=scores["make"].where(scores["make"] != "", "not in metadata.csv"))
    return _ranked([(str(make), "", group) for make, group in named.groupby("make")])


def by_car(scores: pd.DataFrame) -> list[GroupRow]:
    """The cars, the worst first."""
    return _ranked([(str(car), description(group.iloc[0]), group) for car, group in scores.groupby("car")])


def description(score: "pd.Series[Any]") -> str:
    """Year, make and model that are known, such as ``2014 Acura TL``."""
    return " ".join(part for part in (score["year"], score["make"], score["model"]) if part)


def _worst(scores: pd.DataFrame) -> "pd.Series[Any]":
    """The row with the lowest Dice, the first by name of several."""
    return scores.sort_values(["dice", "img"]).iloc[0]


def _cell(scores: pd.DataFrame) -> Cell:
    return Cell(None if scores.empty else float(scores["dice"].mean()), len(scores))


def _shaded(cell: Cell, best: float, worst: float) -> Cell:
    if cell.dice is None or best == worst:
        return cell
    return Cell(cell.dice, cell.images, round((best - cell.dice) / (best - worst), 3))


def _ranked(groups: list[tuple[str, str, pd.DataFrame]]) -> list[GroupRow]:
    """Rows in ascending order of mean Dice, then by name."""
    dice = [float(group["dice"].mean()) for _, _, group in groups]
    largest = 1 - min(dice)
    rows = [
        GroupRow(
            name,
            detail,
            cars=group["car"].nunique(),
            images=len(group),
            dice=mean,
            iou=float(group["iou"].mean()),
            error=(1 - mean) / largest if largest else 0.0,
        )
        for (name, detail, group), mean in zip(groups, dice, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.dice, row.name))
