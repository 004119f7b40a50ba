"""What each part of a prediction adds to the CV: test-time augmentations, members, their weights, the threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from competition.run.records import Gain
from inference.cv.mixtures import MemberWeights, Mixture, equal, one_hot
from inference.cv.tuning import Scores, Tuning

EQUAL = "equal weights"


def gain(what: str, dice: Scores, folds: NDArray[np.integer], *, over: str, before: Scores, note: str = "") -> Gain:
    """A row that compares the Dice of all images, (images,), with their Dice before."""
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


def gains_of_tta(
    tta: Sequence[str], weights: MemberWeights, dice: Mapping[Mixture, Scores], folds: NDArray[np.integer]
) -> list[Gain]:
    """Rows for each TTA by itself, compared with the first, and for adding one after the other."""
    if len(tta) < 2:
        return []
    single = [dice[Mixture(weights, one_hot(index, len(tta)))] for index in range(len(tta))]
    together = [dice[Mixture(weights, equal(number, len(tta)))] for number in range(1, len(tta) + 1)]
    names = [" + ".join(tta[:number]) for number in range(1, len(tta) + 1)]
    rows = [Gain(what=tta[0], dice=float(single[0].mean()))]
    rows += [gain(tta[index], single[index], folds, over=tta[0], before=single[0]) for index in range(1, len(tta))]
    rows += [
        gain(names[index], together[index], folds, over=names[index - 1], before=together[index - 1])
        for index in range(1, len(tta))
    ]
    return rows


def gains_of_members(
    names: Sequence[str], tta: int, dice: Mapping[Mixture, Scores], folds: NDArray[np.integer]
) -> list[Gain]:
    """Rows for each member by itself, and for all with equal weights, compared with the best of them."""
    if len(names) < 2:
        return []
    single = [dice[Mixture(one_hot(index, len(names)), equal(tta))] for index in range(len(names))]
    rows = [Gain(what=f"run {name}", dice=float(each.mean())) for name, each in zip(names, single, strict=True)]
    best = max(range(len(names)), key=lambda index: rows[index].dice)
    together = dice[Mixture(equal(len(names)), equal(tta))]
    return [*rows, gain(EQUAL, together, folds, over=rows[best].what, before=single[best])]


def gain_of_choice(
    what: str, best: str, tuning: Tuning, folds: NDArray[np.integer], *, over: str, used: bool
) -> Gain:
    """A row for a choice that was made for each fold on the other folds; ``best`` is the choice on all folds."""
    note = f"chosen on the other folds, {'used' if used else 'not used'}; on all folds {best}"
    return gain(what, tuning.scores, folds, over=over, before=tuning.before, note=note)


def format_weights(weights: MemberWeights) -> str:
    """Member weights as text, such as ``weights 0.25, 0.75``."""
    return f"weights {', '.join(f'{weight:.3g}' for weight in weights)}"


def print_gains(rows: Sequence[Gain], folds: int) -> None:
    """Print the rows as a table; ``folds`` is the number of folds of the run."""
    width = max(len(row.what) for row in rows)
    print(f"{'what each adds':<{width}}     Dice      gain   spread  folds with a gain")
    for row in rows:
        line = f"{row.what:<{width}}  {row.dice:.5f}"
        if row.gain is not None:
            line += f"  {row.gain:+.5f}  {row.spread:.5f}  {row.folds} of {folds}, over {row.over}"
        print(f"{line}; {row.note}" if row.note else line)
