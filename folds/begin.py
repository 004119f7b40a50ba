"""``make folds``, and all that happens before a run exists: the checks of its settings and data, and its creation.

The settings of a run never change. A run that was created with impossible settings would reject the corrected ones.
So everything is checked first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from competition import files
from competition.command import Failure, parser, printable, run_command
from competition.data_folder import DataFolder, Photo
from competition.files import held
from competition.mask_area import mask_area, mask_areas, require_plausible, require_plausible_in_run
from competition.run.create import record_run
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, open_run, require_same_data
from competition.settings.schema import Settings
from folds import ranks
from folds.batch_size import automatic_batch_size
from folds.device import default_preset, describe_device
from folds.frame import Frame
from folds.leave_out import require_known, without
from folds.networks.build import make_network
from folds.samples import require_shareable
from folds.sources import pseudo_label_file, split_source, starting_weights
from folds.split import folds_text, photos_by_fold, read_folds, split_by_car


def require_possible(run: RunFolder, settings: Settings, data: DataFolder, fold: int | None) -> None:
    """Raise a Failure if a fold (None: one of all folds) of a new run could not be trained."""
    if settings.train.batch_size != "auto":
        require_shareable(settings.train.batch_size, ranks.world())
    split_of = run if run.folds.is_file() else split_source(settings)
    count = len(set(read_folds(split_of.folds).values())) if split_of else settings.split.folds
    if fold is not None and not 0 <= fold < count:
        raise Failure(f"there is no fold {fold} among {count}; FOLD is 0 to {count - 1}")
    require_trainable(settings, data)
    for number in range(count) if fold is None else [fold]:
        starting_weights(run, settings, number)
        pseudo_label_file(run, settings, number)


def require_trainable(settings: Settings, data: DataFolder) -> None:
    """Raise a Failure if no network can be made from the settings, or it cannot be trained on the data."""
    without(data.train, settings.data.leave_out)
    for photo in data.train:
        Frame.of(settings.input).require_room(photo)
    require_suitable(make_network(settings), settings)  # last, because the weights may have to be downloaded


def require_suitable(network: torch.nn.Module, settings: Settings) -> None:
    """Raise a Failure if a network cannot take the sizes of training and validation; some encoders have a fixed size.

    The network is moved to the meta device, where a forward pass computes only shapes.
    """
    network.to("meta")
    for height, width in dict.fromkeys([settings.sample_size, (settings.input.height, settings.input.width)]):
        try:
            with torch.device("meta"), torch.no_grad():
                network(torch.zeros(2, 3, height, width, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            chosen = settings.network
            name = f"encoder={chosen.encoder}" if chosen.name == "timm_unet" else f"name={chosen.name}"
            reason = str(error).partition("\n")[0][:120]
            raise Failure(
                f"network.{name} cannot take {width} x {height} ({reason}); choose another network, or the size that "
                "it is made for"
            ) from error


def ensure_split(run: RunFolder, settings: Settings, data: DataFolder) -> dict[int, list[Photo]]:
    """The photos of each fold by the run's split; creates the run if it does not exist.

    In the settings of a new run, ``train.batch_size=auto`` becomes a number. If the run takes the split of another
    run, ``split.folds`` becomes the number of folds of that split.
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
        create_run(run, settings, data)
    ranks.barrier()
    return photos_by_fold(run.folds, data.train)


def create_run(run: RunFolder, settings: Settings, data: DataFolder) -> None:
    """Write the settings, environment and split of a run, unless they exist."""
    split = None
    if not (run.folds.is_file() and run.settings.is_file()):
        areas = mask_areas(data)
        require_plausible(data, areas)
        split = None if run.folds.is_file() else new_split(settings, data, areas)
    if split is not None:
        settings = settings.with_folds(split.folds)
    with held(run.root / ".lock"):  # processes that train different folds may start at the same time
        record_run(run, settings, data, describe_device())
        if split is not None and not run.folds.is_file():
            with files.replacing(run.folds) as temporary:
                temporary.write_bytes(split.content)


class NewSplit(NamedTuple):
    """The content of folds.csv, and its number of folds, which may differ from that of the settings."""

    content: bytes
    folds: int


def new_split(settings: Settings, data: DataFolder, areas: Sequence[float]) -> NewSplit:
    """The split of a new run: a copy of its source's if the settings name one, else a split by car."""
    source = split_source(settings)
    if source is None:
        for warning in data.groups.warnings:
            print(f"warning: {printable(warning)}", flush=True)
        fold_of = split_by_car(data.train, areas, settings.split.folds, settings.seed)
        return NewSplit(folds_text(data.train, fold_of).encode(), settings.split.folds)
    return NewSplit(source.folds.read_bytes(), len(photos_by_fold(source.folds, data.train)))


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
        print(f"fold {fold}: {cars} cars, {len(photos)} images, mean car area {area:.1%}")
    print(f"{run.folds}  next: make train FOLD=0 RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
