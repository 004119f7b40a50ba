"""How much each of several runs counts in their common answer: its share.

Equal shares, those that the settings give, or those that the CV found better. cv.json keeps them by run, those for
the test set and those of each fold.
"""

from collections.abc import Sequence

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.run.records import CV
from competition.settings.schema import Settings
from inference.cv.mixtures import Shares, equal


def given_shares(settings: Settings, members: Sequence[RunFolder]) -> Shares | None:
    """The shares that inference.member_weights lists; None where it says a word.

    Raises:
        Failure: it lists more or fewer than there are runs, or counts none of them.
    """
    weights = settings.inference.member_weights
    if isinstance(weights, str):
        return None
    if len(weights) != len(members):
        raise Failure(
            f"inference.member_weights={weights} has {len(weights)} weights for {len(members)} runs "
            f"({', '.join(member.name for member in members)}); give one for each, or auto"
        )
    return tuple(weight / sum(weights) for weight in weights)


def chosen_shares(
    run: RunFolder, settings: Settings, members: Sequence[RunFolder], fold: int | None = None
) -> Shares:
    """The shares of the settings; for "auto" those that the CV of the same runs used, equal ones where there is none.

    Args:
        run: whose CV is asked.
        settings: its settings.
        members: the runs that answer.
        fold: whose own shares are wanted, which the CV chose on the other folds; None for those of the test set.

    Raises:
        Failure: what ``given_shares`` raises, or cv.json is damaged.
    """
    given = given_shares(settings, members)
    if given is not None:
        return given
    if settings.inference.member_weights == "auto" and run.cv.is_file():
        cv = CV.read(run.cv)
        part = cv if fold is None else cv.fold(fold)
        known = (part.member_weights if part else None) or {}
        names = [str(member.root) for member in members]
        if known.keys() == set(names):
            return tuple(float(known[name]) for name in names)
    return equal(len(members))


def by_name(members: Sequence[RunFolder], shares: Shares) -> dict[str, float]:
    """Shares as cv.json keeps them."""
    return {str(member.root): share for member, share in zip(members, shares, strict=True)}


def heard(members: Sequence[RunFolder], shares: Shares) -> tuple[list[RunFolder], Shares]:
    """The runs that count, and their shares; nobody needs the networks of the others."""
    counting = [(member, share) for member, share in zip(members, shares, strict=True) if share]
    return [member for member, _ in counting], tuple(share for _, share in counting)
