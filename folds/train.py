"""``make train FOLD=n``: train one fold, or all folds that are not finished."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.deadline import Deadline, add_deadline_argument
from competition.files import held
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, next_hint, open_run, settings_of_existing_run
from competition.run.records import Epoch
from competition.settings.schema import Settings
from folds import ranks
from folds.begin import create_first_stage, ensure_split, require_fair_start, require_fold, require_possible
from folds.device import default_preset, describe_device, describe_precision, keep_freed_memory, pick_device
from folds.frame import Frame
from folds.history import best_of_finished
from folds.leakage import require_unseen
from folds.leave_out import without
from folds.networks.build import make_network
from folds.samples import Samples
from folds.sources import with_pseudo_labels
from folds.stages import first_stage_named
from folds.start import Start, starting_weights
from folds.trainer import Trainer
from folds.validation import Validation
from folds.workers import lack_explained

Folds = Mapping[int, list[Photo]]
# An estimate: a step starts about 1,000 kernels in some 10 ms. A fast GPU trains 1024 x 1024 pixels in that time.
SMALL_SHARE = 2 * 1024 * 1024  # pixels of a step of one GPU


def parse(argv: Sequence[str] | None) -> Namespace:
    """The options of the command; ``--epochs`` and ``--batch-size`` become assignments in ``set``."""
    arguments = parser("Train one fold, or all folds that are not finished. An interrupted training resumes.")
    add_run_arguments(arguments)
    add_deadline_argument(arguments)
    which = arguments.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="number of the fold, from 0")
    which.add_argument("--all", action="store_true", help="every fold that is not finished")
    arguments.add_argument("--epochs", type=int, help="short for --set train.epochs=...")
    arguments.add_argument("--batch-size", help="short for --set train.batch_size=..., a number or auto")
    options = arguments.parse_args(argv)
    short = {"train.epochs": options.epochs, "train.batch_size": options.batch_size}
    options.set = [*options.set, *(f"{name}={value}" for name, value in short.items() if value is not None)]
    return options


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Create the run if it does not exist, and train its folds."""
    options = parse(argv)
    made = train_folds(options, None if options.all else options.fold, Deadline(options.hours))
    print(f"next: {next_hint('score' if options.all else 'cv', *made)}")


@ranks.shared_cores()
def train_folds(options: Namespace, fold: int | None, deadline: Deadline) -> tuple[RunFolder, Settings, DataFolder]:
    """Create a run if it does not exist, and train its folds that are not finished.

    Args:
        options: parsed by a parser with ``add_run_arguments``.
        fold: its number; None trains all folds.
        deadline: when to stop.

    Returns:
        The run, its settings and its data.
    """
    run, settings, data = open_run(options, default_preset())
    if not run.settings.is_file():
        require_possible(run, settings, data, fold)
    by_fold = ensure_split(run, settings, data, fold)
    settings = settings_of_existing_run(run, options)  # as stored: train.batch_size=auto is a number there
    chosen = list(by_fold) if fold is None else [fold]
    for number in chosen:
        if number in by_fold and not best_of_finished(run, settings, number):
            require_fold(run, settings, by_fold, number)
            if not run.last(number).is_file():
                require_fair_start(settings, by_fold, number)
    for number in chosen:
        train_fold(run, settings, data, by_fold, number, deadline=deadline)
    return run, settings, data


def train_fold(
    run: RunFolder,
    settings: Settings,
    data: DataFolder,
    by_fold: Folds,
    fold: int,
    *,
    deadline: Deadline | None = None,
) -> None:
    """Train a fold until it is finished, from its beginning or from ``last.pt``."""
    if fold not in by_fold:
        raise Failure(f"there is no fold {fold} in {run.folds}; FOLD is one of {', '.join(map(str, by_fold))}")
    busy = f"fold {fold} of run {run.name} is being trained by another process"
    with ranks.entered_by_first(held(run.fold(fold) / ".lock", busy)):
        best = best_of_finished(run, settings, fold)
        if best is None:
            train_first_stage(run, settings, data, by_fold, fold, deadline=deadline)
            best = fit(run, settings, data, by_fold, fold, deadline=deadline)
    print(f"fold {fold} is trained: Dice {best.dice:.5f}, IoU {best.iou:.5f} (epoch {best.epoch})")


def train_first_stage(
    run: RunFolder,
    settings: Settings,
    data: DataFolder,
    by_fold: Folds,
    fold: int,
    *,
    deadline: Deadline | None = None,
) -> None:
    """Train the first stage of a fold until it is finished, if there is one and the next stage has not begun."""
    *first, _ = settings.stages
    if not first or run.last(fold).is_file():
        return
    stage = create_first_stage(run, first[0], data)
    print(f"fold {fold}: first stage")
    with first_stage_named():
        best = best_of_finished(stage, first[0], fold) or fit(stage, first[0], data, by_fold, fold, deadline=deadline)
    ranks.barrier()  # all ranks read the weights that the first one has written
    print(f"fold {fold}: first stage is trained, Dice {best.dice:.5f}, IoU {best.iou:.5f} (epoch {best.epoch})")


def fit(
    run: RunFolder,
    settings: Settings,
    data: DataFolder,
    by_fold: Folds,
    fold: int,
    *,
    deadline: Deadline | None = None,
) -> Epoch:
    """Train the remaining epochs of a fold; returns its best epoch."""
    trainer = make_trainer(run, settings, data, by_fold, fold)
    if trainer.finished:  # only files that follow from last.pt are missing
        trainer.write_results(trainer.state.state_dict())
    else:
        print(describe(trainer), flush=True)
        if trainer.device.type == "cuda" and (warning := small_share(settings, ranks.world())):
            print(f"warning: {warning}", flush=True)
        with lack_explained(fold):
            trainer.fit(deadline)
    assert trainer.best is not None
    return trainer.best


def make_trainer(run: RunFolder, settings: Settings, data: DataFolder, by_fold: Folds, fold: int) -> Trainer:
    """Set up a fold: the network learns from the photos of the other folds and is validated on the fold's own."""
    torch.manual_seed(settings.seed + fold)
    device = pick_device()
    keep_freed_memory()  # the workers inherit this
    network, start = first_network(run, settings, fold, by_fold[fold])
    others = (photo for other, photos in by_fold.items() if other != fold for photo in photos)
    pseudo_labelled, labelled = with_pseudo_labels(run, settings, data, fold)
    learned = without(others, settings.data.leave_out) + pseudo_labelled
    held_out = by_fold[fold]
    require_unseen(pseudo_labelled, held_out, run.learned_pseudo(fold))
    assert not {photo.car for photo in learned} & {photo.car for photo in held_out}, "a car on both sides"
    frame, train = Frame.of(settings.input), settings.train
    return Trainer(
        network,
        Samples(learned, labelled, frame, settings.augment, seed=settings.seed, cache=train.cache),
        Validation(held_out, data, frame, batch_size=settings.inference.batch_size, workers=train.workers),
        settings=settings,
        run=run,
        fold=fold,
        device=device,
        learned=all_cars(learned, start),
    )


def first_network(
    run: RunFolder, settings: Settings, fold: int, held_out: Sequence[Photo]
) -> tuple[nn.Module, Start | None]:
    """The network with its starting weights; a fold that resumes gets its weights from ``last.pt`` later."""
    if run.last(fold).is_file():
        return make_network(settings, pretrained=False), None
    network = make_network(settings, pretrained=not settings.first_stage.epochs)
    start = starting_weights(run, settings, fold, held_out)
    if start:
        network.load_state_dict(start.weights)
    return network, start


def all_cars(learned: Sequence[Photo], start: Start | None) -> tuple[str, ...] | None:
    """The cars of the training photos and of the starting weights; None if the latter are not recorded."""
    before = start.learned if start else ()
    return None if before is None else tuple(sorted({*before, *(photo.car for photo in learned)}))


def describe(trainer: Trainer) -> str:
    """One line: where the training starts, on how many images, on which device, and the network's size."""
    resumes = trainer.state.epoch or trainer.state.update
    processes = f"{ranks.world()} x " if ranks.world() > 1 else ""
    frame, settings = trainer.settings.input, trainer.settings.train
    height, width = trainer.settings.sample_size
    crops = f"crops of {width} x {height} of " if trainer.settings.augment.crop else ""
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    return (
        f"fold {trainer.fold} {f'resumes in epoch {trainer.state.epoch + 1}' if resumes else 'begins'}: "
        f"{len(trainer.loader.dataset)} images, "  # type: ignore[arg-type]
        f"{processes}{describe_device()}, {describe_precision(settings.precision, trainer.device)}, "
        f"{crops}{frame.width} x {frame.height}, {parameters / 1e6:.2f} M parameters"
    )


def small_share(settings: Settings, world: int) -> str | None:
    """A warning if each of several GPUs gets so few pixels in a step that starting its kernels takes longer."""
    assert settings.train.batch_size != "auto"
    share, (height, width) = settings.train.batch_size // world, settings.sample_size
    if world == 1 or share * height * width >= SMALL_SHARE:
        return None
    return (
        f"each of {world} GPUs gets train.batch_size / NPROC = {share} x {width} x {height} pixels in a step, so it "
        "may wait for the CPU that starts its kernels; use a larger train.batch_size in a new RUN, or fewer processes"
    )


if __name__ == "__main__":
    run_command(main)
