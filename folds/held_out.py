"""Weights belong to the fold that they were trained for: they have seen all cars but those that it holds out.

Folds are gathered from several machines, and folds.csv can be edited: so weights themselves know what was held out.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from competition.command import Failure
from competition.run.folder import RunFolder
from folds.checkpoint import load_facts
from folds.split import read_folds


def held_out_key(names: Iterable[str]) -> str:
    """A hash of the names of a fold's images, in whatever order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def require_held_out(run: RunFolder, fold: int, weights: Path | None = None) -> None:
    """Refuse weights of a fold that may have seen its cars.

    Args:
        run: whose split it is.
        fold: number of the fold.
        weights: by default the fold's best.

    Raises:
        Failure: they are missing, damaged, of another fold, or of another split than the run's folds.csv.
    """
    weights = weights or run.best(fold)
    facts = load_facts(weights)
    again = f"remove {run.fold(fold)} and train it: make train FOLD={fold} RUN={run.called}"
    if facts["fold"] != fold:
        raise Failure(
            f"{weights} holds the weights of fold {facts['fold']}, which have seen the cars that fold {fold} is "
            f"validated on; {again}"
        )
    key = held_out_key(name for name, other in read_folds(run.folds).items() if other == fold)
    if facts.get("held_out", key) != key:  # older weights do not know it
        raise Failure(
            f"{weights} was not trained with the split {run.folds}, and may have seen the cars that fold {fold} is "
            f"validated on; put its own split back, or {again}"
        )
