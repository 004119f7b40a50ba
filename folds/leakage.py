"""No network is ever scored on a car that it learned from.

Folds may be gathered from several machines and folds.csv can be edited. So the weights themselves record which images
were held out, and every command that scores them compares.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from competition.command import Failure
from competition.hint import hint
from competition.photo import Photo
from competition.run.folder import RunFolder
from folds.checkpoint import load_provenance
from folds.split import read_folds


def held_out_key(names: Iterable[str]) -> str:
    """A hash of the image names of a fold; their order does not matter."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def require_held_out(run: RunFolder, fold: int, weights: Path | None = None) -> None:
    """Raise a Failure unless weights (by default the fold's best) were trained without the images of a fold."""
    weights = weights or run.best(fold)
    provenance = load_provenance(weights)
    again = f"remove {run.fold(fold)} and train it: {hint('train', FOLD=fold, RUN=run.called)}"
    if provenance.fold != fold:
        raise Failure(
            f"{weights} holds the weights of fold {provenance.fold}, which have seen the cars that fold {fold} is "
            f"validated on; {again}"
        )
    held_out = [name for name, other in read_folds(run.folds).items() if other == fold]
    if provenance.held_out != held_out_key(held_out):
        raise Failure(
            f"{weights} was not trained with the split {run.folds}, and may have seen the cars that fold {fold} is "
            f"validated on; restore the split it was trained with, or {again}"
        )


def require_same_split(run: RunFolder, source: RunFolder, setting: str) -> None:
    """Raise a Failure if a run and the run that a setting names do not have equal folds.csv files."""
    if run.root.resolve() == source.root.resolve():
        raise Failure(f"{setting} names {run.root}, the run itself; name another run, or none")
    if run.folds.is_file() and run.folds.read_bytes() != source.folds.read_bytes():
        raise Failure(
            f"{run.folds} is not the split of {source.folds}: networks of {source.name} may have seen cars that are "
            f"held out here, which is a leak; name a new RUN, which will take the split of {source.name}"
        )


def require_unseen(labelled: Sequence[Photo], held_out: Sequence[Photo], file: Path) -> None:
    """Raise a Failure if pseudo-labels show a car that the fold is validated on: test sets may contain such cars."""
    cars = {photo.car for photo in held_out}
    for photo in labelled:
        if photo.car in cars:
            raise Failure(
                f"{file} labels {photo.img}, and car {photo.car} is held out from this fold, which is a leak; name a "
                "new RUN without data.pseudo, or with pseudo-labels made without that car's test photos"
            )
