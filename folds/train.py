"""``make train FOLD=n``: train one fold, or all that are not finished."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo
from competition.files import held
from competition.images import shape_of
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, open_run, split_source
from competition.settings.schema import Settings
from folds import ranks
from folds.batch_size import sample_size
from folds.device import default_preset, describe_device, pick_device, resolve_precision
from folds.frame import Frame
from folds.held_out import require_held_out
from folds.init_from import first_weights
from folds.leave_out import without
from folds.memory import keep_freed_memory
from folds.networks.build import make_network
from folds.pseudo import pseudo_labels, with_pseudo_labels
from folds.samples import Samples, require_shareable
from folds.split import ensure_split, read_folds
from folds.trainer import Trainer, best_line
from folds.validation import Validation

Folds = Mapping[int, list[Photo]]
Line = dict[str, Any]


def train_fold(run: RunFolder, settings: Settings, data: DataFolder, by_fold: Folds, fold: int) -> None:
    """Train a fold from its beginning, or from where it stopped, until it is finished.

    Raises:
        Failure: there is no such fold, or whatever the network, the data or the disk refuse.
    """
    if fold not in by_fold:
        raise Failure(f"there is no fold {fold} in {run.folds}; FOLD is one of {', '.join(map(str, by_fold))}")
    busy = f"fold {fold} of run {run.name} is being trained by another process"
    with ranks.on_behalf_of_all(held(run.fold(fold) / ".lock", busy)):
        best = best_of_finished(run, settings, fold) or fit(run, settings, data, by_fold, fold)
    print(f"fold {fold} is trained: Dice {best['dice']:.5f}, IoU {best['iou']:.5f} (epoch {best['epoch']})")


def fit(run: RunFolder, settings: Settings, data: DataFolder, by_fold: Folds, fold: int) -> Line:
    """Do the epochs that are left of a fold; returns the history's line of its best."""
    trainer = make_trainer(run, settings, data, by_fold, fold)
    if trainer.finished:
        return results_of(trainer)
    device = trainer.device
    began = f"goes on in epoch {trainer.epoch + 1}" if trainer.epoch or trainer.update else "begins"
    print(
        f"fold {fold} {began}: {len(trainer.loader.dataset)} images, "  # type: ignore[arg-type]
        f"{f'{ranks.world()} x ' if ranks.world() > 1 else ''}{describe_device()}, "
        f"{resolve_precision(settings.train.precision, device)}, {settings.input.width} x {settings.input.height}, "
        f"{parameters(trainer.network) / 1e6:.2f} M parameters",
        flush=True,
    )
    trainer.fit()
    assert trainer.best is not None
    return trainer.best


def results_of(trainer: Trainer) -> Line:
    """Write what a finished training has lost since; returns the history's line of its best."""
    best, fold = trainer.run.best(trainer.fold), trainer.run.fold(trainer.fold)
    if not trainer.best_weights and not best.is_file():  # of a version that did not keep them in last.pt
        raise Failure(f"{best} is gone for good; remove {fold} to train it again")
    trainer.write_results()
    assert trainer.best is not None
    return trainer.best


def make_trainer(run: RunFolder, settings: Settings, data: DataFolder, by_fold: Folds, fold: int) -> Trainer:
    """The trainer of a fold: it learns from the photos of the other folds, and is validated on its own."""
    torch.manual_seed(settings.seed + fold)
    device = pick_device()
    if device.type == "cpu":
        keep_freed_memory()
    train = settings.train
    frame = Frame.of(settings.input)
    begins = not run.last(fold).is_file()
    network = make_network(settings, pretrained=begins)
    if begins and (weights := first_weights(run, settings, fold)):
        network.load_state_dict(weights)
    others = (photo for other, photos in by_fold.items() if other != fold for photo in photos)
    more, labelled = with_pseudo_labels(run, settings, data, fold)
    learned = without(others, settings.data.leave_out) + more
    held_out = by_fold[fold]
    require_unseen(more, held_out, run.learned_pseudo(fold))
    assert not {photo.car for photo in learned} & {photo.car for photo in held_out}, "a car on both sides"
    return Trainer(
        network,
        Samples(learned, labelled, frame, settings.augment, seed=settings.seed, cache=train.cache),
        Validation(held_out, data, frame, batch_size=settings.inference.batch_size, workers=train.workers),
        settings=settings,
        run=run,
        fold=fold,
        device=device,
    )


def require_unseen(labelled: Sequence[Photo], held_out: Sequence[Photo], file: Path) -> None:
    """Refuse pseudo-labels of a car that the fold is validated on: a test set may hold training cars."""
    cars = {photo.car for photo in held_out}
    for photo in labelled:
        if photo.car in cars:
            raise Failure(
                f"{file} labels {photo.img}, and car {photo.car} is held out from this fold, which is a leak; name a "
                "new RUN without data.pseudo, or with pseudo-labels made without that car's test photos"
            )


def require_possible(run: RunFolder, settings: Settings, data: DataFolder, fold: int | None) -> None:
    """Refuse what cannot be trained before the run exists: it would hold on to the settings that were refused.

    Raises:
        Failure: there will be no such fold, the batch cannot be shared, or ``require_trainable``, ``first_weights``
            or ``pseudo_labels`` refuses.
    """
    if settings.train.batch_size != "auto":
        require_shareable(settings.train.batch_size, ranks.world())
    known = run if run.folds.is_file() else split_source(settings)
    count = max(read_folds(known.folds).values()) + 1 if known else settings.split.folds
    if fold is not None and not 0 <= fold < count:
        raise Failure(f"there is no fold {fold} among {count}; FOLD is 0 to {count - 1}")
    require_trainable(settings, data)
    for number in range(count) if fold is None else [fold]:
        first_weights(run, settings, number)
        pseudo_labels(run, settings, number)


def require_trainable(settings: Settings, data: DataFolder) -> None:
    """Refuse settings that suit no network, or not these data.

    Raises:
        Failure: the network cannot be made or cannot take the input, all photos are left out, or one is larger
            than the frame that it is padded to.
    """
    without(data.train, settings.data.leave_out)
    for photo in data.train:
        Frame.of(settings.input).require_room(shape_of(photo.path), photo.path)
    require_suitable(make_network(settings), settings)  # last: the weights may have to be fetched


def require_suitable(network: torch.nn.Module, settings: Settings) -> None:
    """Refuse a network that cannot take what it will learn from or be validated on: some encoders fix the size.

    Tried without computing anything, on the meta device, to which the network goes.
    """
    network.to("meta")
    for height, width in dict.fromkeys([sample_size(settings), (settings.input.height, settings.input.width)]):
        try:
            with torch.device("meta"), torch.no_grad():
                network(torch.zeros(2, 3, height, width, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            chosen = settings.network
            name = f"encoder={chosen.encoder}" if chosen.name == "timm_unet" else f"name={chosen.name}"
            raise Failure(
                f"network.{name} cannot take {width} x {height} ({str(error).partition(chr(10))[0][:120]}); give "
                "another network, or the size that it is made for"
            ) from error


def best_of_finished(run: RunFolder, settings: Settings, fold: int) -> Line | None:
    """The history's best line if all epochs of a fold are done and its weights are there, else None.

    Raises:
        Failure: ``require_held_out`` refuses the weights.
    """
    if not run.history(fold).is_file() or not run.best(fold).is_file():
        return None
    lines: list[Line] = [json.loads(line) for line in run.history(fold).read_text(encoding="utf-8").splitlines()]
    if len(lines) < settings.train.epochs:
        return None
    require_held_out(run, fold)
    return best_line(lines)


def parameters(network: torch.nn.Module) -> int:
    """The number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())


def assignments(options: Namespace) -> list[str]:
    """The settings that have options of their own, as SET would spell them."""
    named = {"train.epochs": options.epochs, "train.batch_size": options.batch_size}
    return [f"{name}={value}" for name, value in named.items() if value is not None]


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Train what the command line names."""
    arguments = parser("Train one fold, or all folds that are not finished. Goes on by itself where it stopped.")
    add_run_arguments(arguments)
    which = arguments.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="number of the fold, from 0")
    which.add_argument("--all", action="store_true", help="every fold that is not finished")
    arguments.add_argument("--epochs", type=int, help="short for --set train.epochs=...")
    arguments.add_argument("--batch-size", help="short for --set train.batch_size=..., a number or auto")
    options = arguments.parse_args(argv)
    options.set = [*options.set, *assignments(options)]
    run, settings, data = open_run(options, default_preset())
    if not run.settings.is_file():
        require_possible(run, settings, data, options.fold)
    by_fold = ensure_split(run, settings, data)
    _, settings, _ = open_run(options)  # as the run has them: auto has become a number
    for fold in by_fold if options.all else [options.fold]:
        train_fold(run, settings, data, by_fold, fold)
    print(f"next: make {'score' if options.all else 'cv'} RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
