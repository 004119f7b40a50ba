"""Out-of-fold predictions: every training photo is predicted by the networks that did not see its car, with the code
that predicts the test set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.data_folder import DataFolder, Photo
from competition.images import shape_of
from competition.run.folder import RunFolder
from competition.settings.schema import Settings
from folds import ranks
from folds.device import pick_device
from inference.cv.mixtures import Mixture, Shares, dice_of_mixtures, matrix
from inference.cv.tuning import Scores, Tuning
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.engine.host_masks import LEVELS, Prediction, dice_curve, full_size, full_size_components, spans_at
from inference.engine.stream import stream_predictions
from inference.members import checkpoints
from inference.shards import key_of, numbers_of, require_unchanged, run_shards, write_with_numbers


class Chosen(NamedTuple):
    """Thresholds, as levels, and shares of the runs: what the test set is to have, and what each fold has."""

    level: int
    level_of_fold: dict[int, int]
    shares: Shares
    shares_of_fold: dict[int, Shares]

    def with_threshold(self, tuning: Tuning) -> "Chosen":
        """With the thresholds that ``tune_threshold`` chose."""
        level_of_fold = {fold: choice + 1 for fold, choice in tuning.choice_of_fold.items()}
        return self._replace(level=tuning.choice + 1, level_of_fold=level_of_fold)

    def with_weights(self, tuning: Tuning, tried: Sequence[Shares]) -> "Chosen":
        """With the shares that ``tune_weights`` chose among those tried."""
        shares_of_fold = {fold: tried[choice] for fold, choice in tuning.choice_of_fold.items()}
        return self._replace(shares=tried[tuning.choice], shares_of_fold=shares_of_fold)


class OutOfFold(NamedTuple):
    """All training images, predicted.

    Attributes:
        shards: their masks, in the order of the folds.
        folds: (images,), the fold of each.
        curves: (images, 255), their Dice at each threshold.
        mixtures: (images,), their Dice at one half by each mixture that was asked for.
    """

    shards: list[Path]
    folds: NDArray[np.int64]
    curves: Scores
    mixtures: dict[Mixture, Scores]


def predict_out_of_fold(
    settings: Settings,
    data: DataFolder,
    *,
    members: Sequence[RunFolder],
    by_fold: Mapping[int, list[Photo]],
    digests: Mapping[Path, str],
    parts: Path,
    chosen: Chosen,
    mixtures: Sequence[Mixture] = (),
) -> OutOfFold:
    """Predict each fold's photos with the networks that did not see them, in shards that a restart takes up.

    Args:
        settings: of the run.
        data: where the masks are.
        members: the runs that answer.
        by_fold: the photos.
        digests: the checkpoints of all folds, as they were when the command began.
        parts: where the shards are kept; its name stands for all that is not chosen here.
        chosen: the threshold of each fold, and its shares of the members.
        mixtures: others that are measured beside; all members must then have a share.
    """
    device = pick_device()
    how = settings.inference
    key = key_of(levels=chosen.level_of_fold, shares=chosen.shares_of_fold, mixtures=list(mixtures))
    ranks.require_same("what they would predict", key)
    shards: list[Path] = []
    for fold, photos in by_fold.items():
        paths, shares = checkpoints(members, fold), chosen.shares_of_fold[fold]
        ensembles = load_ensembles(paths, how, device=device, member_weights=shares)
        require_unchanged({path: digests[path] for path in paths})

        def work(
            part: Sequence[Photo],
            file: Path,
            ensembles: Sequence[Ensemble] = ensembles,
            level: int = chosen.level_of_fold[fold],
        ) -> None:
            predict_shard(part, file, ensembles, data=data, settings=settings, level=level, mixtures=mixtures)

        shards += run_shards(parts / key / f"fold{fold}", photos, how.shard, work, f"score fold {fold}")
    numbers = np.concatenate([np.load(numbers_of(shard)) for shard in shards])
    curves, measured = np.split(numbers, [LEVELS - 1], axis=1)
    folds = np.concatenate([np.full(len(photos), fold) for fold, photos in by_fold.items()])
    ranks.barrier()  # the parts are removed in the end, when nobody reads them any more
    return OutOfFold(shards, folds, curves, dict(zip(mixtures, measured.T, strict=True)))


def predict_shard(
    photos: Sequence[Photo],
    file: Path,
    ensembles: Sequence[Ensemble],
    *,
    data: DataFolder,
    settings: Settings,
    level: int,
    mixtures: Sequence[Mixture],
) -> None:
    """Predict photos; write their masks as one shard of a submission, and beside it the Dice curve of each, with
    its Dice by each mixture behind."""
    weights = matrix(mixtures, ensembles)

    def finish(photo: Photo, predictions: Sequence[Prediction]) -> tuple[str, str, NDArray[np.float64]]:
        truth, shape = data.truth_spans(photo), shape_of(photo.path)
        levels = full_size(predictions, shape)
        numbers = dice_curve(levels, truth)
        if mixtures:
            components = full_size_components(predictions, shape)
            numbers = np.concatenate([numbers, dice_of_mixtures(components, weights, truth)])
        return photo.img, rle.to_text(spans_at(levels, level)), numbers

    how = settings.inference
    answered = stream_predictions(
        photos, ensembles, finish, batch_size=how.batch_size, readers=how.readers, components=bool(mixtures)
    )
    write_with_numbers(file, answered)
