"""The trained folds of a run, ready to predict photos of any origin. One fold is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from competition.command import Failure
from competition.files import sha256
from competition.hint import hint
from competition.run.folder import RunFolder, run_at
from competition.run.records import CV, Environment
from competition.settings.schema import Inference, Settings
from folds.checkpoint import load_provenance
from folds.split import read_folds
from inference.choice import choose, weights_by_name, with_weight
from inference.engine.ensemble import load_ensembles
from inference.engine.trained_model import TrainedModel
from inference.members import checkpoints
from inference.shards import facts_of, require_unchanged

# Facts of a prediction that change no more than the last bits of a probability, which a level hardly ever shows.
UNIMPORTANT = ("batch_size", "shard", "threads")


@dataclass(frozen=True)
class TrainedFolds:
    """Folds of a run that predict together, on one device.

    Attributes:
        run: the run.
        folds: their numbers.
        left_out: the folds that are not trained.
        members: the runs that predict: the run itself, or the members of a combined run.
        weights: the weight of each member.
        threshold: the lowest probability of the object: of the settings, else chosen by the CV, else 0.5.
        inference: the settings.
        device: where to predict.
    """

    run: RunFolder
    folds: Sequence[int]
    left_out: Sequence[int]
    members: Sequence[RunFolder]
    weights: Sequence[float]
    threshold: float
    inference: Inference
    device: torch.device

    @property
    def batch_size(self) -> int:
        """Photos in each call of the networks: one on a CPU, which predicts a batch no faster."""
        return 1 if self.device.type == "cpu" else self.inference.batch_size

    def describe(self) -> str:
        """For people: ``fold 0 of run x (Dice 0.993)``."""
        dice = [load_provenance(member.best(fold)).dice for fold in self.folds for member in self.members]
        folds = f"fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))}"
        mean = f"{'mean ' if len(dice) > 1 else ''}Dice {sum(dice) / len(dice):.3f}"
        return f"{folds} of run {self.run.name} ({mean})"

    def facts(self) -> dict[str, Any]:
        """What decides the levels of a photo."""
        facts = facts_of(self.inference, self.device)
        return {
            **{name: value for name, value in facts.items() if name not in UNIMPORTANT},
            "checkpoints": [sha256(path) for fold in self.folds for path in checkpoints(self.members, fold)],
            "member_weights": list(weights_by_name(self.members, tuple(self.weights)).values()),
            "threshold": self.threshold,
        }

    def load(self) -> TrainedModel:
        """Load the networks."""
        paths = [path for fold in self.folds for path in checkpoints(self.members, fold)]
        digests = {path: sha256(path) for path in paths}
        how = self.inference.model_copy(update={"batch_size": self.batch_size})
        weights = [*self.weights] * len(self.folds)
        ensembles = load_ensembles(paths, how, device=self.device, member_weights=weights)
        require_unchanged(digests)
        if len(ensembles) > 1:
            names = " and ".join(member.called for member in self.members)
            raise Failure(
                f"the networks of run {self.run.name} have different input sizes, which only score and predict "
                f"average; use one of its runs: {names}"
            )
        return TrainedModel(ensembles[0], self.threshold, self.batch_size)


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
    threshold, weights = choose(settings.inference, members, CV.read_if_exists(run.cv))
    members, weights = with_weight(members, weights)
    trained = [fold for fold in known if all(member.best(fold).is_file() for member in members)]
    wanted = trained if only is None else list(dict.fromkeys(only))
    if not wanted:
        raise Failure(f"no fold of run {run.name} is trained: {hint('train', FOLD=known[0], RUN=members[0].called)}")
    for fold in wanted:
        checkpoints(members, fold)  # complains about one that is missing
    left_out = [] if only is not None else [fold for fold in known if fold not in trained]
    return TrainedFolds(run, wanted, left_out, members, weights, threshold, settings.inference, device)
