"""The first weights of a fold from the same fold of another run: fine-tuning, at a larger size for example.

A network may only begin with weights that have not seen the cars it will be validated on. So both runs must have the
same split, to the byte, and fold n begins from fold n.
"""

from torch import Tensor

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.run.open import source_of
from competition.settings.schema import Network, Settings
from folds.checkpoint import load_weights
from folds.held_out import require_held_out
from folds.split import require_same_split

SETTING = "network.init_from"
# Where a network begins, and which of its layers stay there, is not what it is.
BEGINNING = {"weights", "init_from", "freeze"}


def first_weights(run: RunFolder, settings: Settings, fold: int) -> dict[str, Tensor] | None:
    """The best weights of a fold in the run that ``network.init_from`` names; None where it names none.

    Raises:
        Failure: the split of that run is another one, its fold is not trained, its weights are those of another fold,
            or its network is another one.
    """
    source = source_of(settings, SETTING)
    if source is None:
        return None
    require_same_split(run, source, SETTING)
    if not source.best(fold).is_file():
        raise Failure(
            f"fold {fold} of {source.root}, which network.init_from names, is not trained; train it first: "
            f"make train FOLD={fold} RUN={source.called}"
        )
    require_held_out(source, fold)
    network, their_settings, _ = load_weights(source.best(fold))
    require_same_network(settings.network, their_settings.network, source)
    return network.state_dict()


def require_same_network(ours: Network, theirs: Network, source: RunFolder) -> None:
    """Raise a Failure that names the first difference of two networks, apart from where they begin."""
    for (name, value), other in zip(ours, dict(theirs).values(), strict=True):
        if name not in BEGINNING and value != other:
            raise Failure(
                f"network.{name} is {value}, but {other} in {source.root}, whose weights network.init_from asks for; "
                f"SET=network.{name}={str(other).replace(' ', '')} for a network like that"
            )
