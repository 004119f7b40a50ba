"""Pseudo-labels: test photos with masks that another run's networks are sure of, to learn from too.

Fold n learns from what fold n's networks of that run say. They have not seen the cars that fold n is validated on, as
long as both runs have the same split, to the byte.
"""

import shutil
from pathlib import Path

from competition import files
from competition.command import Failure
from competition.data_folder import DataFolder, Photo
from competition.mask_table import read_rle_rows
from competition.run.folder import RunFolder
from competition.run.open import source_of
from competition.settings.schema import Settings
from folds import ranks
from folds.split import require_same_split

SETTING = "data.pseudo"


def pseudo_labels(run: RunFolder, settings: Settings, fold: int) -> Path | None:
    """The file of the pseudo-labels that a fold is to learn from; None where ``data.pseudo`` names no run.

    Raises:
        Failure: that run has another split, or has not labelled the test set.
    """
    if run.learned_pseudo(fold).is_file():
        return run.learned_pseudo(fold)
    source = source_of(settings, SETTING)
    if source is None:
        return None
    require_same_split(run, source, SETTING)
    if not source.pseudo(fold).is_file():
        raise Failure(f"no pseudo-labels {source.pseudo(fold)}; make them first: make pseudo RUN={source.called}")
    return source.pseudo(fold)


def with_pseudo_labels(
    run: RunFolder, settings: Settings, data: DataFolder, fold: int
) -> tuple[list[Photo], DataFolder]:
    """The photos that a fold learns from besides those with masks, and the data with the masks of both.

    The labels are copied into the run: a training that is killed goes on with those that it began with.

    Raises:
        Failure: what ``pseudo_labels`` refuses, or a photo of the file is not in the test set.
    """
    file = pseudo_labels(run, settings, fold)
    if file is None:
        return [], data
    kept = run.learned_pseudo(fold)
    if ranks.first() and file != kept:
        with files.replacing(kept) as temporary:
            shutil.copyfile(file, temporary)
    ranks.barrier()
    photos = {photo.img: photo for photo in data.test}
    names = [img for _, img, _ in read_rle_rows(kept)]
    missing = [img for img in names if img not in photos]
    if missing:
        raise Failure(f"{kept} labels {missing[0]}, which is no test photo of {data.root}; name its own DATA")
    return [photos[img] for img in names], data.with_masks(kept)
