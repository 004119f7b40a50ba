"""``make cutout``: cut the objects out of photos with the trained folds of a run; one fold is enough."""

from argparse import Namespace
from collections.abc import Sequence

from competition.command import Failure, parser, run_command
from competition.run.folder import RunFolder, run_at
from competition.run.open import add_trained_run_arguments, settings_of_existing_run
from folds.device import pick_device
from inference.cutouts.command import add_cutout_arguments, cut_out, key_of, kinds_of
from inference.cutouts.job import Order
from inference.engine.trained_model import TrainedModel
from inference.members import print_unfinished
from inference.trained import TrainedFolds, trained_folds


def open_folds(options: Namespace) -> TrainedFolds:
    """The trained folds that the command line names."""
    run = run_at(options.run)
    require_run(run)
    settings = settings_of_existing_run(run, options)
    only = None if options.fold is None else [options.fold]
    return trained_folds(run, settings, pick_device(), only)


def require_run(run: RunFolder) -> None:
    """Raise a Failure if there is no such run."""
    if not run.settings.is_file():
        raise Failure(f"no run {run.root}; RUN must name a trained run: make train FOLD=0 RUN={run.called}")


def main(argv: Sequence[str] | None = None) -> None:
    """Cut out photos."""
    arguments = parser("Cut the objects out of photos with the trained folds of a run.")
    add_cutout_arguments(arguments)
    add_trained_run_arguments(arguments)
    arguments.add_argument("--fold", type=int, help="use this fold only (default: all that are trained)")
    options = arguments.parse_args(argv)
    kinds = kinds_of(options)
    trained = open_folds(options)
    out = options.out or trained.run.cutouts
    key = key_of(options, **trained.facts())
    order = Order(out, kinds, options.crop, key, trained.batch_size, trained.inference.readers)

    def load() -> TrainedModel:
        if trained.left_out:
            print(f"note: not trained, so left out: {', '.join(f'fold {fold}' for fold in trained.left_out)}")
        print_unfinished(trained.members, trained.folds)
        return trained.load()

    cut_out(options, order, trained.describe(), load)


if __name__ == "__main__":
    run_command(main)
