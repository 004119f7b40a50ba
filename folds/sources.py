"""What a run takes from another run: starting weights (``network.init_from``) and pseudo-labels (``data.pseudo``).

Fold n learns from fold n of the other run. The networks of that fold have not seen the cars that fold n is validated
on, provided that both runs have the same split. So a new run takes the split of its source, and an existing run
is rejected if its split differs.
"""

import shutil
from pathlib import Path

from competition import files
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.hint import hint
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.run.folder import RunFolder, run_at
from competition.run.open import SOURCES
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Settings, flat
from folds import ranks
from folds.leakage import require_same_split

INIT_FROM, PSEUDO = SOURCES


def source_of(settings: Settings, setting: str) -> RunFolder | None:
    """The run that a setting names; None if it is "none"."""
    name = flat(settings)[setting]
    if name == "none":
        return None
    source = run_at(name)
    if not source.folds.is_file():
        raise Failure(
            f"no split {source.folds} of the run that {setting} names; train that run first: "
            + hint("cv", RUN=source.called)
        )
    return source


def split_source(settings: Settings) -> RunFolder | None:
    """The run whose split a new run takes; None if the settings name no source."""
    sources = [source for setting in SOURCES if (source := source_of(settings, setting))]
    if len({source.folds.read_bytes() for source in sources}) > 1:
        raise Failure(
            f"{' and '.join(SOURCES)} name runs of different splits: the networks of one have seen the cars that the "
            "other holds out; name runs with the same split"
        )
    return sources[0] if sources else None


def pseudo_label_file(run: RunFolder, settings: Settings, fold: int) -> Path | None:
    """The pseudo-labels that a fold learns from: its own copy, else its source's; None without ``data.pseudo``."""
    if run.learned_pseudo(fold).is_file():
        return run.learned_pseudo(fold)
    source = source_of(settings, PSEUDO)
    if source is None:
        return None
    require_same_split(run, source, PSEUDO)
    theirs, ours = resolve(load_yaml(source.settings)).data.orientation, settings.data.orientation
    if theirs != ours:  # the labels of a photo with an EXIF orientation would not fit it
        raise Failure(
            f"data.orientation is {ours}, but {theirs} in {source.root}, which {PSEUDO} names; set "
            f"SET=data.orientation={theirs} to use its pseudo-labels"
        )
    if not source.pseudo(fold).is_file():
        raise Failure(f"no pseudo-labels {source.pseudo(fold)}; make them first: {hint('pseudo', RUN=source.called)}")
    return source.pseudo(fold)


def with_pseudo_labels(
    run: RunFolder, settings: Settings, data: DataFolder, fold: int
) -> tuple[list[Photo], DataFolder]:
    """The test photos that a fold learns from, and the data folder with their masks added.

    The pseudo-labels are copied into the run, so that an interrupted training resumes with the same labels.
    """
    file = pseudo_label_file(run, settings, fold)
    if file is None:
        return [], data
    copy = run.learned_pseudo(fold)
    if ranks.first() and file != copy:
        with files.replacing(copy) as temporary:
            shutil.copyfile(file, temporary)
    ranks.barrier()
    photos = {photo.img: photo for photo in data.test}
    names = [row.img for row in read_rows(copy)]
    missing = [img for img in names if img not in photos]
    if missing:
        raise Failure(
            f"{copy} labels {missing[0]}, which is not a test photo of {data.root}; name the data folder that the "
            "labels were made for: DATA=..."
        )
    return [photos[img] for img in names], data.with_masks(copy)
