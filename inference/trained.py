"""The trained folds of a run, ready to predict photos of any origin. One fold is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from competition.command import Failure
from competition.hint import hint
from competition.run.folder import RunFolder, run_at
from competition.run.records import CV, Environment
from competition.settings.schema import Settings
from folds.checkpoint import load_provenance
from folds.split import read_folds
from inference.choice import choose, weights_by_name, with_weight
from inference.engine.trial_export import with_able_engine
from inference.members import checkpoints, print_unfinished
from inference.networks import Networks


@dataclass(frozen=True)
class TrainedFolds(Networks):
    """Folds of a run that predict together.

    Attributes:
        run: the run.
        folds: their numbers.
        left_out: the folds that are not trained.
        members: the runs that predict: the run itself, or the members of a combined run.
        weights: the weight of each member.
    """

    run: RunFolder
    folds: Sequence[int]
    left_out: Sequence[int]
    members: Sequence[RunFolder]
    weights: Sequence[float]

    @property
    def paths(self) -> list[Path]:
        """The checkpoints."""
        return [path for fold in self.folds for path in checkpoints(self.members, fold)]

    @property
    def shares(self) -> list[float]:
        """The weight of each member."""
        return list(weights_by_name(self.members, tuple(self.weights)).values())

    @property
    def cutouts(self) -> Path:
        """The folder for cut-outs."""
        return self.run.cutouts

    def describe(self) -> str:
        """For people: ``fold 0 of run x (Dice 0.993)``."""
        dice = [load_provenance(member.best(fold)).dice for fold in self.folds for member in self.members]
        folds = f"fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))}"
        mean = f"{'mean ' if len(dice) > 1 else ''}Dice {sum(dice) / len(dice):.3f}"
        return f"{folds} of run {self.run.name} ({mean})"

    def print_notes(self) -> None:
        """Print which folds are left out, and which are not trained to the end."""
        if self.left_out:
            print(f"note: not trained, so left out: {', '.join(f'fold {fold}' for fold in self.left_out)}")
        print_unfinished(self.members, self.folds)


def trained_folds(
    run: RunFolder, settings: Settings, device: torch.device, only: Sequence[int] | None = None
) -> TrainedFolds:
    """The folds of a run whose weights are there.

    Args:
        run: a trained run, or a combined one.
        settings: of the run.
        device: where to predict.
        only: the numbers of the folds; by default all that are trained.
    """
    members = [run_at(name) for name in Environment.read(run.environment).runs] or [run]
    known = sorted(set(read_folds(run.folds).values()))
    for fold in only or ():
        if fold not in known:
            raise Failure(f"run {run.name} has no fold {fold}; its folds are {', '.join(map(str, known))}")
    how = with_able_engine(settings.inference, device, members)
    threshold, weights = choose(how, members, CV.read_if_exists(run.cv))
    members, weights = with_weight(members, weights)
    trained = [fold for fold in known if all(member.best(fold).is_file() for member in members)]
    wanted = trained if only is None else list(dict.fromkeys(only))
    if not wanted:
        raise Failure(f"no fold of run {run.name} is trained: {hint('train', FOLD=known[0], RUN=members[0].called)}")
    for fold in wanted:
        checkpoints(members, fold)  # complains about one that is missing
    left_out = [] if only is not None else [fold for fold in known if fold not in trained]
    return TrainedFolds(threshold, how, device, run, wanted, left_out, members, weights)
