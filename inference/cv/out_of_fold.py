"""Out-of-fold predictions: each training image, predicted by the networks that did not see its car.

The code is the same that predicts the test set.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.data_folder import DataFolder
from competition.deadline import Deadline
from competition.files import sha256
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.settings.schema import Inference
from folds import ranks
from folds.device import pick_device
from folds.split import photos_by_fold
from inference.choice import Choice
from inference.cv.mixtures import MemberWeights, Mixture, component_weights, dice_of_mixtures
from inference.cv.tuning import Scores, Tuning, thresholds
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import (
    LEVELS,
    Prediction,
    dice_curve,
    full_size,
    full_size_components,
    kept_curve,
    level_of,
    spans_at,
)
from inference.engine.stream import map_in_threads, predict_photos
from inference.members import checkpoints, print_unfinished
from inference.shards import Numbers, ShardedJob, facts_of, key_of, read_numbers, write_with_numbers


class Choices(NamedTuple):
    """A choice for the test set, made on all folds, and one for each fold, made on the other folds."""

    test: Choice
    folds: dict[int, Choice]

    @classmethod
    def same(cls, choice: Choice, folds: Iterable[int]) -> Self:
        """The same choice for the test set and all folds."""
        return cls(choice, dict.fromkeys(folds, choice))

    def with_threshold(self, tuning: Tuning) -> Self:
        """Replace the thresholds by those of ``tune_threshold``."""
        values = thresholds()
        folds = {
            fold: choice._replace(threshold=values[tuning.choice_of_fold[fold]])
            for fold, choice in self.folds.items()
        }
        return self._replace(test=self.test._replace(threshold=values[tuning.choice]), folds=folds)

    def with_weights(self, tuning: Tuning, tried: Sequence[MemberWeights]) -> Self:
        """Replace the member weights by those of ``tune_weights``."""
        folds = {
            fold: choice._replace(member_weights=tried[tuning.choice_of_fold[fold]])
            for fold, choice in self.folds.items()
        }
        return self._replace(test=self.test._replace(member_weights=tried[tuning.choice]), folds=folds)


class OutOfFold(NamedTuple):
    """The predictions of all training images, in the order of the folds.

    Attributes:
        shards: files of their masks.
        folds: (images,), the fold of each.
        curves: (images, 255), the Dice of each at every threshold.
        kept: (images, 255), whether each keeps half of its car and background, from ``host_masks.kept_curve``.
        mixtures: (images,) for each mixture, the Dice of each at threshold 0.5.
    """

    shards: list[Path]
    folds: NDArray[np.int64]
    curves: Scores
    kept: Scores
    mixtures: dict[Mixture, Scores]


class OutOfFoldJob:
    """Predicts the images of each fold with the networks that did not see their cars, in shards.

    Args:
        run: whose split it is, and where the shards are kept.
        settings: of the run.
        data: the photos and their masks.
        members: the runs that predict together.
        deadline: when to stop.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: Inference,
        data: DataFolder,
        members: Sequence[RunFolder],
        deadline: Deadline | None = None,
    ) -> None:
        self.settings = settings
        self.data = data
        self.by_fold = photos_by_fold(run.folds, data.train)
        self.checkpoints = {fold: checkpoints(members, fold) for fold in self.by_fold}
        print_unfinished(members, list(self.by_fold))
        self.digests = {path: sha256(path) for paths in self.checkpoints.values() for path in paths}
        device = pick_device()
        facts = {
            **facts_of(settings, device),
            "checkpoints": {str(path): digest for path, digest in self.digests.items()},
            "folds": sha256(run.folds),
            "data": data.fingerprint,
            "masks": data.masks_fingerprint,  # the numbers beside the shards are scores against them
            "numbers": ["dice", "kept"],
        }
        self.job = ShardedJob(
            run.oof_shards, facts, self.digests, settings=settings, device=device, deadline=deadline
        )

    def predict(self, choices: Choices, mixtures: Sequence[Mixture] = ()) -> OutOfFold:
        """Predict all folds with their choices, and measure other mixtures of the same components.

        The weight of each member must be above 0 in all folds if mixtures are measured.
        """
        key = key_of(choices=choices.folds, mixtures=list(mixtures))
        ranks.require_same("what they would predict", key)
        shards: list[Path] = []
        for fold, photos in self.by_fold.items():
            choice = choices.folds[fold]
            shards += self.job.run(
                photos,
                self.checkpoints[fold],
                choice.member_weights,
                partial(self._write, level=level_of(choice.threshold), mixtures=mixtures),
                title=f"score fold {fold}",
                folder=f"{key}/fold{fold}",
            )
        curves, kept, measured = np.split(read_numbers(shards), [LEVELS - 1, 2 * (LEVELS - 1)], axis=1)
        folds = np.concatenate([np.full(len(photos), fold) for fold, photos in self.by_fold.items()])
        return OutOfFold(shards, folds, curves, kept, dict(zip(mixtures, measured.T, strict=True)))

    def remove(self) -> None:
        """Remove the shards of all calls; the last step of `make score`."""
        self.job.remove()

    def _write(
        self,
        ensembles: Sequence[Ensemble],
        photos: Sequence[Photo],
        file: Path,
        *,
        level: int,
        mixtures: Sequence[Mixture],
    ) -> None:
        """Write a shard: the masks at a level, and for each image its two curves and its Dice for each mixture."""
        weights = component_weights(mixtures, ensembles)

        def measure(photo: Photo, predictions: Sequence[Prediction]) -> tuple[str, str, Numbers]:
            truth, shape = self.data.truth_spans(photo), photo.shape
            levels = full_size(predictions, shape)
            numbers = np.concatenate([dice_curve(levels, truth), kept_curve(levels, truth)])
            if mixtures:
                components = full_size_components(predictions, shape)
                numbers = np.concatenate([numbers, dice_of_mixtures(components, weights, truth)])
            return photo.img, rle.to_text(spans_at(levels, level)), numbers

        predicted = predict_photos(photos, ensembles, self.settings, components=bool(mixtures))
        write_with_numbers(file, map_in_threads(measure, predicted, self.settings))
