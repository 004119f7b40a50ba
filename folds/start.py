"""The trained weights of a whole network that a fold starts from.

``network.init_from`` names a run: fold n starts from the best weights of its fold n, as from those of a first stage.
``network.weights`` can name a file, of any run or ``studio``: every fold starts from it. Weights record the cars that
they have learned. A fold that is validated on one of these cars is rejected.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from competition.command import Failure
from competition.grouping import car_and_view
from competition.hint import hint
from competition.listing import few
from competition.photo import Photo
from competition.plural import counted
from competition.run.folder import RunFolder
from competition.settings.schema import Network, Settings
from folds.checkpoint import load_record, load_weights
from folds.leakage import require_held_out, require_same_split
from folds.networks.build import assigned
from folds.networks.whole import whole_network
from folds.sources import INIT_FROM, source_of

WEIGHTS = "network.weights"
# Two networks may differ in these settings and still fit the same weights.
NOT_ARCHITECTURE = {"weights", "init_from", "freeze"}
OTHER_WEIGHTS = "start from others: SET=network.weights=hub or none"


class Start(NamedTuple):
    """The weights that a fold starts from, and the cars that they have learned, None if that is not recorded."""

    weights: dict[str, Tensor]
    learned: tuple[str, ...] | None


def start_file(run: RunFolder, settings: Settings, fold: int) -> Path | None:
    """The checkpoint that a fold starts from; None if it starts from the weights of an encoder, or random ones."""
    source = run.first_stage if settings.first_stage.epochs else source_of(settings, INIT_FROM)
    if source is None:
        return whole_network(settings.network.weights)
    require_same_split(run, source, INIT_FROM)
    if not source.best(fold).is_file():
        raise Failure(
            f"fold {fold} of {source.root}, which {INIT_FROM} names, is not trained; train it first: "
            + hint("train", FOLD=fold, RUN=source.called)
        )
    require_held_out(source, fold)
    return source.best(fold)


def load_start(path: Path, settings: Settings) -> Start:
    """Read a checkpoint for the network of the settings."""
    network, theirs, provenance = load_weights(path)
    require_same_network(settings, theirs.network, path)
    return Start(network.state_dict(), provenance.learned)


def require_unlearned(path: Path, settings: Settings, fold: int, held_out: Sequence[Photo]) -> None:
    """Raise a Failure if a fold is validated on a car that the weights in a checkpoint have learned."""
    theirs, provenance = load_record(path)
    if provenance.learned is None:
        if settings.network.init_from != "none" or settings.first_stage.epochs:
            return  # the weights of the same fold, with the same split: ``start_file`` has compared
        raise Failure(
            f"{path} does not record which cars it has learned, because an earlier version wrote it, so fold {fold} "
            "may be validated on one of them; train it again, or name its run with network.init_from"
        )
    # As the weights name cars: the two runs may have different data.cars.
    cars = {car_and_view(photo.img, theirs.data.cars)[0] for photo in held_out}
    seen = sorted(cars & set(provenance.learned))
    if seen:
        raise Failure(
            f"{_called(path, settings)} have learned {counted(len(seen), 'car')} that fold {fold} is validated on, "
            f"which is a leak: {few(seen)}; {OTHER_WEIGHTS}"
        )


def starting_weights(run: RunFolder, settings: Settings, fold: int, held_out: Sequence[Photo]) -> Start | None:
    """The weights that a fold starts from; None if it starts from the weights of an encoder, or random ones."""
    path = start_file(run, settings, fold)
    if path is None:
        return None
    require_unlearned(path, settings, fold, held_out)
    return load_start(path, settings)


def differences(ours: Network, theirs: Network) -> list[str]:
    """The settings in which two architectures differ; weights of one fit the other if there are none."""
    fitting = dict(theirs)
    return [name for name, value in ours if name not in NOT_ARCHITECTURE and value != fitting[name]]


def require_same_network(settings: Settings, theirs: Network, path: Path) -> None:
    """Raise a Failure that names every difference in architecture, if there is one."""
    ours, fitting = dict(settings.network), dict(theirs)
    different = differences(settings.network, theirs)
    if different:
        fits = assigned(fitting, different)
        raise Failure(
            f"{_called(path, settings)} do not fit {' '.join(assigned(ours, different))}; set "
            f'SET="{" ".join(fits)}" to use them, or {OTHER_WEIGHTS}'
        )


def _called(path: Path, settings: Settings) -> str:
    """Weights in a message, with the setting that names them."""
    named_by = WEIGHTS if settings.network.init_from == "none" else INIT_FROM
    return f"the weights in {path}, which {named_by} names,"
