"""The stages of a fold's training: an optional first one, and the run's own.

The first stage is a run of its own in the folder of its run, with the same split. The fold then starts from the best
weights of that run's same fold, so the rules for ``network.init_from`` hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from competition.command import Failure
from competition.settings.schema import Settings

# In messages about the first stage.
NAMES = {
    ", or with train.batch_size=auto": "",
    "train.batch_size": "first_stage.batch_size",
    "train.lr": "first_stage.lr",
    "augment.crop": "first_stage.crop",
}


def in_each_stage(settings: Settings, check: Callable[[Settings], None]) -> None:
    """Call a check with the settings of each stage."""
    *first, own = settings.stages
    for stage in first:
        with first_stage_named():
            check(stage)
    check(own)


@contextmanager
def first_stage_named() -> Iterator[None]:
    """Let a Failure name the settings of the first stage as they are set."""
    try:
        yield
    except Failure as problem:
        text = str(problem)
        for name, named in NAMES.items():
            text = text.replace(name, named)
        raise Failure(text) from problem
