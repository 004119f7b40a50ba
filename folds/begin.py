"""``make folds``, and all that happens before a run exists: the checks of its settings and data, and its creation.

The settings of a run never change. A run that was created with impossible settings would reject the corrected ones.
So everything is checked first.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from competition import files
from competition.command import Failure, parser, printable, run_command
from competition.data_folder import DataFolder
from competition.files import held
from competition.mask_area import mask_area, mask_areas, require_plausible, require_plausible_in_run, warn_of_inverted
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.plural import counted
from competition.run.create import record_run
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, next_hint, open_run, require_same_data
from competition.settings.schema import Settings
from folds import ranks
from folds.batch_size import automatic_batch_size
from folds.device import default_preset, describe_device
from folds.frame import Frame
from folds.leave_out import require_known, without
from folds.memory import available_memory, require_cache_fits
from folds.networks.build import make_network
from folds.networks.suitable import require_batch, require_suitable
from folds.networks.whole import whole_network
from folds.samples import require_shareable
from folds.shared_memory import require_shared_memory, shared_memory
from folds.sources import pseudo_label_file, split_source
from folds.split import folds_text, photos_by_fold, read_folds, split_by_car
from folds.stages import in_each_stage
from folds.start import load_start, require_unlearned, start_file
from folds.workers import require_files


def require_possible(run: RunFolder, settings: Settings, data: DataFolder, fold: int | None) -> None:
    """Raise a Failure if a fold (None: one of all folds) of a new run could not be trained."""
    in_each_stage(settings, _require_shareable)
    split_of = run if run.folds.is_file() else split_source(settings)
    count = len(set(read_folds(split_of.folds).values())) if split_of else settings.split.folds
    if fold is not None and not 0 <= fold < count:
        raise Failure(f"there is no fold {fold} among {count}; FOLD is 0 to {count - 1}")
    require_trainable(settings, data)
    wanted = range(count) if fold is None else [fold]
    starts = (start_file(run, settings.stages[0], number) for number in wanted)
    for path in {path for path in starts if path}:
        load_start(path, settings)
    for number in wanted:
        pseudo_label_file(run, settings, number)


def require_trainable(settings: Settings, data: DataFolder) -> None:
    """Raise a Failure if no network can be made from the settings, or it cannot be trained on the data."""
    without(data.train, settings.data.leave_out)
    data.require_masks(data.train)
    for photo in data.train:
        Frame.of(settings.input).require_room(photo)
    in_each_stage(settings, _require_network)  # last, because the weights may have to be downloaded


def _require_shareable(stage: Settings) -> None:
    if stage.train.batch_size != "auto":
        require_shareable(stage.train.batch_size, ranks.world())


def _require_network(stage: Settings) -> None:
    require_suitable(make_network(stage, pretrained=not stage.first_stage.epochs), stage)


def ensure_split(
    run: RunFolder, settings: Settings, data: DataFolder, fold: int | None = None
) -> dict[int, list[Photo]]:
    """The photos of each fold by the run's split; creates the run if it does not exist.

    A run is not created if the starting weights of a fold (None: of any fold) have learned a car of that fold. In the
    settings of a new run, ``train.batch_size=auto`` becomes a number. If the run takes the split of another run,
    ``split.folds`` becomes the number of folds of that split.
    """
    data.require_masks(data.train)
    require_known(data.train, settings.data.leave_out)
    if run.settings.is_file():
        require_same_data(run, data)
        if ranks.first():
            require_plausible_in_run(run, data)
    elif settings.train.batch_size == "auto":
        settings = settings.with_batch_size(automatic_batch_size(settings, len(data.train)))
    ranks.barrier()  # no rank may create the run before all ranks have seen whether it exists
    if ranks.first():
        create_run(run, settings, data, fold)
    ranks.barrier()
    return photos_by_fold(run.folds, data.train)


def create_run(run: RunFolder, settings: Settings, data: DataFolder, fold: int | None = None) -> None:
    """Write the settings, environment and split of a run, unless they exist; see ``ensure_split``."""
    split = None
    if not (run.folds.is_file() and run.settings.is_file()):
        areas = mask_areas(data)
        require_plausible(data, areas)
        warn_of_inverted(data, areas)
        split = None if run.folds.is_file() else new_split(settings, data, areas)
    if split is not None:
        settings = settings.with_folds(len(split.by_fold))
        for number in split.by_fold:
            require_fold(run, settings, split.by_fold, number)
    if not run.settings.is_file():
        by_fold = split.by_fold if split else photos_by_fold(run.folds, data.train)
        for number in by_fold if fold is None else [fold]:
            require_fair_start(settings, by_fold, number)
    with held(run.root / ".lock"):  # processes that train different folds may start at the same time
        record_run(run, settings, data, describe_device())
        if split is not None and not run.folds.is_file():
            with files.replacing(run.folds) as temporary:
                temporary.write_bytes(split.content)


def create_first_stage(run: RunFolder, settings: Settings, data: DataFolder) -> RunFolder:
    """The run of a first stage, which lies in the folder of its run and has the same split."""
    stage = run.first_stage
    if ranks.first():
        with held(run.root / ".lock"):
            record_run(stage, settings, data, describe_device())
            with files.replacing(stage.folds) as temporary:
                temporary.write_bytes(run.folds.read_bytes())
    ranks.barrier()
    return stage


class NewSplit(NamedTuple):
    """The content of folds.csv, and the photos of its folds, which may be more or fewer than the settings say."""

    content: bytes
    by_fold: dict[int, list[Photo]]


def require_fold(run: RunFolder, settings: Settings, by_fold: Mapping[int, Sequence[Photo]], fold: int) -> None:
    """Raise a Failure if the photos of a fold, or the memory or files of this machine, do not suffice to train it."""
    others = (photo for other, photos in by_fold.items() if other != fold for photo in photos)
    learned = len(without(others, settings.data.leave_out)) + _pseudo_labels(run, settings, fold)
    in_each_stage(settings, lambda stage: require_batch(stage, learned, fold))
    require_files(settings.train.workers)
    shared = shared_memory()
    in_each_stage(settings, lambda stage: require_shared_memory(stage, learned, len(by_fold[fold]), shared))
    require_cache_fits(settings, learned, available_memory())


def require_fair_start(settings: Settings, by_fold: Mapping[int, Sequence[Photo]], fold: int) -> None:
    """Raise a Failure if the file that ``network.weights`` names has learned a car that a fold is validated on.

    Weights of the run that ``network.init_from`` names are compared when they are loaded: they may not exist yet.
    """
    path = whole_network(settings.network.weights) if settings.network.init_from == "none" else None
    if path:
        require_unlearned(path, settings, fold, by_fold[fold])


def _pseudo_labels(run: RunFolder, settings: Settings, fold: int) -> int:
    """The number of pseudo-labels that a fold learns from."""
    try:
        file = pseudo_label_file(run, settings, fold)
    except Failure:  # only the folds that are trained now need them, which ``require_possible`` checks
        return 0
    return sum(1 for _ in read_rows(file)) if file else 0


def new_split(settings: Settings, data: DataFolder, areas: Sequence[float]) -> NewSplit:
    """The split of a new run: a copy of its source's if the settings name one, else a split by car."""
    source = split_source(settings)
    if source is None:
        for warning in data.groups.warnings:
            print(f"warning: {printable(warning)}", flush=True)
        fold_of = split_by_car(data.train, areas, settings.split.folds, settings.seed)
        by_fold: dict[int, list[Photo]] = {fold: [] for fold in range(settings.split.folds)}
        for photo, fold in zip(data.train, fold_of, strict=True):
            by_fold[fold].append(photo)
        return NewSplit(folds_text(data.train, fold_of).encode(), by_fold)
    return NewSplit(source.folds.read_bytes(), photos_by_fold(source.folds, data.train))


def main(argv: Sequence[str] | None = None) -> None:
    """Create a run with its split, and print the split."""
    arguments = parser("Create a run and divide the training cars into its folds.")
    add_run_arguments(arguments)
    run, settings, data = open_run(arguments.parse_args(argv), default_preset())
    if not run.settings.is_file():
        require_trainable(settings, data)
    by_fold = ensure_split(run, settings, data)
    for fold, photos in by_fold.items():
        area = np.mean([mask_area(data, photo) for photo in photos])
        cars = len({photo.car for photo in photos})
        print(f"fold {fold}: {counted(cars, 'car')}, {counted(len(photos), 'image')}, mean car area {area:.1%}")
    print(f"{run.folds}  next: {next_hint('train', run, settings, data, FOLD=0)}")


if __name__ == "__main__":
    run_command(main)
