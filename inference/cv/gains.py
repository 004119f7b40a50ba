"""What each part of an answer adds to the CV: views, runs, their weights, the threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from competition.run.records import Gain
from inference.cv.mixtures import Mixture, Shares, alone, equal
from inference.cv.tuning import Scores, Tuning

EQUAL = "equal weights"


def gain(what: str, dice: Scores, folds: NDArray[np.integer], *, over: str, before: Scores, note: str = "") -> Gain:
    """A row that compares the Dice of images, (images,), with what it was before."""
    of_folds = [float((dice - before)[folds == fold].mean()) for fold in np.unique(folds)]
    return Gain(
        what=what,
        dice=float(dice.mean()),
        over=over,
        gain=float(dice.mean()) - float(before.mean()),
        spread=float(np.std(of_folds, ddof=1)) if len(of_folds) > 1 else 0.0,
        folds=sum(each > 0 for each in of_folds),
        note=note,
    )


def gains_of_views(
    views: Sequence[str], shares: Shares, dice: Mapping[Mixture, Scores], folds: NDArray[np.integer]
) -> list[Gain]:
    """Each view alone, over the first one; and one more after the other, each over those before it."""
    if len(views) < 2:
        return []
    by_itself = [dice[Mixture(shares, alone(view, len(views)))] for view in range(len(views))]
    together = [dice[Mixture(shares, equal(number, len(views)))] for number in range(1, len(views) + 1)]
    names = [" + ".join(views[:number]) for number in range(1, len(views) + 1)]
    rows = [Gain(what=views[0], dice=float(by_itself[0].mean()))]
    rows += [
        gain(view, dice_of_view, folds, over=views[0], before=by_itself[0])
        for view, dice_of_view in list(zip(views, by_itself, strict=True))[1:]
    ]
    rows += [
        gain(names[more], together[more], folds, over=names[more - 1], before=together[more - 1])
        for more in range(1, len(views))
    ]
    return rows


def gains_of_runs(
    names: Sequence[str], views: int, dice: Mapping[Mixture, Scores], folds: NDArray[np.integer]
) -> list[Gain]:
    """Each run alone; all of them together, over the best of them."""
    if len(names) < 2:
        return []
    by_itself = [dice[Mixture(alone(run, len(names)), equal(views))] for run in range(len(names))]
    rows = [Gain(what=f"run {name}", dice=float(each.mean())) for name, each in zip(names, by_itself, strict=True)]
    best = max(range(len(names)), key=lambda run: rows[run].dice)
    together = dice[Mixture(equal(len(names)), equal(views))]
    return [*rows, gain(EQUAL, together, folds, over=rows[best].what, before=by_itself[best])]


def gain_of_choice(what: str, tuning: Tuning, folds: NDArray[np.integer], *, over: str, used: bool) -> Gain:
    """A row for what was chosen for each fold on the other folds."""
    note = f"chosen on the other folds, {'used' if used else 'not used'}"
    return gain(what, tuning.scores, folds, over=over, before=tuning.before, note=note)


def in_words(shares: Shares) -> str:
    """``weights 0.25, 0.75``."""
    return f"weights {', '.join(f'{share:.3g}' for share in shares)}"


def print_gains(rows: Sequence[Gain], folds: int) -> None:
    """The table."""
    width = max(len(row.what) for row in rows)
    print(f"{'what each adds':<{width}}     Dice      gain   spread  folds that gain")
    for row in rows:
        line = f"{row.what:<{width}}  {row.dice:.5f}"
        if row.gain is not None:
            line += f"  {row.gain:+.5f}  {row.spread:.5f}  {row.folds} of {folds}, over {row.over}"
        print(f"{line}; {row.note}" if row.note else line)
