"""Out-of-fold predictions: each training image, predicted by the networks that did not see its car.

The code is the same that predicts the test set. Levels are kept until the score is done, so that the masks of other
member weights or thresholds need no network.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

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
from inference.cv import kept_levels
from inference.cv.mixtures import MemberWeights, Mixture, component_weights, dice_of_mixtures
from inference.cv.tuning import Scores, Tuning, thresholds
from inference.engine.host_masks import (
    LEVELS,
    FloatArray,
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
from inference.shards import (
    Count,
    Load,
    MeasuredRow,
    ShardedJob,
    facts_of,
    key_of,
    read_numbers,
    shard_files,
    write_with_numbers,
)

MOST_WEIGHTINGS = 16  # of three members; the means for all of them are in memory while a batch is predicted


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
        self.run = run
        self.settings = settings
        self.data = data
        self.members = members
        self.deadline = deadline
        self.by_fold = photos_by_fold(run.folds, data.train)
        self.checkpoints = {fold: checkpoints(members, fold) for fold in self.by_fold}
        self.digests = {path: sha256(path) for paths in self.checkpoints.values() for path in paths}
        self.device = pick_device()
        # Whether masks of other choices than the first may be needed.
        self.chooses = settings.threshold == "auto" or (settings.member_weights == "auto" and len(members) > 1)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything that decides the predictions and what is measured."""
        return {
            **facts_of(self.settings, self.device),
            "checkpoints": {str(path): digest for path, digest in self.digests.items()},
            "folds": sha256(self.run.folds),
            "data": self.data.fingerprint,
            "masks": self.data.masks_fingerprint,  # the numbers beside the shards are scores against them
            "numbers": ["dice", "kept"],
        }

    @cached_property
    def job(self) -> ShardedJob:
        """The shards."""
        print_unfinished(self.members, list(self.by_fold))
        return ShardedJob(
            self.run.oof_shards,
            self.facts,
            self.digests,
            settings=self.settings,
            device=self.device,
            deadline=self.deadline,
        )

    def predict(
        self,
        choices: Choices,
        mixtures: Sequence[Mixture] = (),
        tried: Sequence[MemberWeights] = (),
        title: str = "score",
    ) -> OutOfFold:
        """Predict all folds with their choices, and measure other mixtures of the same components.

        Images whose levels are kept for the choice of their fold need no network.

        Args:
            choices: of each fold.
            mixtures: to measure; the weight of each member must be above 0 in all folds then.
            tried: member weights that may be chosen later.
            title: text of the progress bar, before the fold.
        """
        shards: list[Path] = []
        folder = self._folder(choices, mixtures)
        ranks.require_same("what they would predict", folder)
        for fold, photos in self.by_fold.items():
            choice = choices.folds[fold]
            write = partial(
                self._write,
                choice=choice,
                mixtures=mixtures,
                weightings=tried if 1 < len(tried) <= MOST_WEIGHTINGS else [choice.member_weights],
                folder=self._levels(fold),
            )
            shards += self.job.run(
                photos,
                self.checkpoints[fold],
                choice.member_weights,
                write,
                title=f"{title} fold {fold}",
                folder=f"{folder}/fold{fold}",
            )
        curves, kept, measured = np.split(read_numbers(shards), [LEVELS - 1, 2 * (LEVELS - 1)], axis=1)
        folds = np.concatenate([np.full(len(photos), fold) for fold, photos in self.by_fold.items()])
        return OutOfFold(shards, folds, curves, kept, dict(zip(mixtures, measured.T, strict=True)))

    def predict_again(self, choices: Choices, title: str) -> OutOfFold:
        """Make the masks of other choices from the kept levels, or by the networks where none are kept."""
        folder, missing = self._folder(choices), 0
        for fold, photos in self.by_fold.items():
            size = self.settings.shard
            for number, file in enumerate(shard_files(self.job.folder / folder / f"fold{fold}", len(photos), size)):
                if not file.is_file() and not levels_file(self._levels(fold), file).is_file():
                    missing += len(photos[number * size : (number + 1) * size])
        if missing:
            print(f"note: the networks run again for {missing:,} images, whose predictions are not kept", flush=True)
        ranks.barrier()  # no rank may change what another one counts
        return self.predict(choices, title=title)

    def remove(self) -> None:
        """Remove the shards of all calls; the last step of `make score`."""
        self.job.remove()

    def _folder(self, choices: Choices, mixtures: Sequence[Mixture] = ()) -> str:
        """The name of the folder of some predictions."""
        return key_of(choices=choices.folds, mixtures=list(mixtures))

    def _levels(self, fold: int) -> Path:
        """The folder of the kept levels of a fold."""
        return self.job.folder / "levels" / f"fold{fold}"

    def _write(
        self,
        load: Load,
        photos: Sequence[Photo],
        file: Path,
        count: Count[MeasuredRow],
        *,
        choice: Choice,
        mixtures: Sequence[Mixture],
        weightings: Sequence[MemberWeights],
        folder: Path,
    ) -> None:
        """Write a shard: the masks of a choice, and for each image its two curves and its Dice for each mixture."""
        level, levels = level_of(choice.threshold), levels_file(folder, file)
        predicted = None if mixtures else kept_levels.read(levels, photos, choice.member_weights)
        if predicted:
            rows = map_in_threads(partial(self._measure, level=level), predicted, self.settings)
            write_with_numbers(file, count(rows))
            return
        ensembles = load()
        measure = partial(self._measure, level=level, weights=component_weights(mixtures, ensembles))
        keeps = self.chooses and kept_levels.is_room(folder.parent)
        others = weightings if keeps and len(weightings) > 1 else ()
        predicted = predict_photos(photos, ensembles, self.settings, components=bool(mixtures), others=others)
        if keeps:
            measured = map_in_threads(kept_levels.with_levels(measure), predicted, self.settings)
            rows = kept_levels.keep(levels, measured, ensembles, weightings)
        else:
            rows = map_in_threads(measure, predicted, self.settings)
        write_with_numbers(file, count(rows))

    def _measure(
        self, photo: Photo, predictions: Sequence[Prediction], *, level: int, weights: FloatArray | None = None
    ) -> MeasuredRow:
        """The mask of an image at a level, its two curves, and its Dice for each mixture of its components."""
        truth, levels = self.data.truth_spans(photo), full_size(predictions, photo.shape)
        numbers = [dice_curve(levels, truth), kept_curve(levels, truth)]
        if weights is not None and len(weights):
            numbers.append(dice_of_mixtures(full_size_components(predictions, photo.shape), weights, truth))
        return photo.img, rle.to_text(spans_at(levels, level)), np.concatenate(numbers)


def levels_file(folder: Path, shard: Path) -> Path:
    """The file of the kept levels of a shard."""
    return folder / f"{shard.name.removesuffix('.csv.gz')}.zip"
