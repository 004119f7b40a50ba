"""The threshold and the member weights that a prediction uses.

The settings come first, then what the CV chose, for the test set or for one fold, then 0.5 and equal weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

from competition.command import Failure
from competition.plural import counted
from competition.run.folder import RunFolder
from competition.run.records import CV
from competition.settings.schema import Inference
from inference.cv.mixtures import MemberWeights, equal


class Choice(NamedTuple):
    """A threshold, and the weight of each member; the weights sum to 1."""

    threshold: float
    member_weights: MemberWeights


def choose(settings: Inference, members: Sequence[RunFolder], cv: CV | None, fold: int | None = None) -> Choice:
    """The threshold and the member weights for the test set, or for images of one fold.

    Args:
        settings: of the run.
        members: the runs that predict together.
        cv: of the same run, if it is scored.
        fold: use what the CV chose for this fold on the other folds; None uses what it chose on all folds.
    """
    known = cv if cv is None or fold is None else cv.fold(fold)
    threshold = settings.threshold
    if threshold == "auto":
        threshold = known.threshold if known else 0.5
    weights = given_weights(settings, members)
    if weights is None and settings.member_weights == "auto" and known and known.member_weights:
        by_name = known.member_weights
        names = [str(member.root) for member in members]
        if by_name.keys() == set(names):
            weights = tuple(by_name[name] for name in names)
    return Choice(threshold, weights or equal(len(members)))


def given_weights(settings: Inference, members: Sequence[RunFolder]) -> MemberWeights | None:
    """The weights that ``inference.member_weights`` lists, or None if it is auto or equal."""
    weights = settings.member_weights
    if isinstance(weights, str):
        return None
    if len(weights) != len(members):
        raise Failure(
            f"inference.member_weights={weights} has {counted(len(weights), 'weight')} "
            f"for {counted(len(members), 'run')} ({', '.join(member.name for member in members)}); "
            "give one for each, or auto"
        )
    return tuple(weight / sum(weights) for weight in weights)


def with_weight(members: Sequence[RunFolder], weights: MemberWeights) -> tuple[list[RunFolder], MemberWeights]:
    """The members with a weight above 0, and their weights; runs with weight 0 are not loaded."""
    used = [(member, weight) for member, weight in zip(members, weights, strict=True) if weight]
    return [member for member, _ in used], tuple(weight for _, weight in used)


def weights_by_name(members: Sequence[RunFolder], weights: MemberWeights) -> dict[str, float]:
    """Member weights as the records of a run keep them."""
    return {str(member.root): weight for member, weight in zip(members, weights, strict=True)}
