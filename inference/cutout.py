"""``make cutout``: cut the objects out of photos with the trained folds of a run, or with the studio weights."""

from argparse import Namespace
from collections.abc import Sequence

from competition.command import Failure, parser, run_command
from competition.hint import hint
from competition.run.folder import run_at
from competition.run.open import add_trained_run_arguments, settings_of_existing_run
from folds.device import pick_device
from folds.networks.whole import STUDIO
from inference.cutouts.command import add_cutout_arguments, cut_out, key_of, kinds_of
from inference.cutouts.job import Order
from inference.engine.trained_model import TrainedModel
from inference.networks import Networks
from inference.studio import open_studio_weights
from inference.trained import trained_folds


def open_networks(options: Namespace) -> Networks:
    """The trained folds of the run that is named, else of the run ``default``, else the studio weights.

    ``--run studio`` means the studio weights, unless there is a run of that name.
    """
    run = run_at(options.run or "default")
    only = None if options.fold is None else [options.fold]
    if run.settings.is_file():
        return trained_folds(run, settings_of_existing_run(run, options), pick_device(), only)
    if options.run in (None, STUDIO):
        return open_studio_weights(pick_device(), options.set, only)
    raise Failure(
        f"no run {run.root}; RUN must name a trained run: {hint('train', FOLD=0, RUN=run.called)}; without RUN, "
        "the studio weights cut out"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Cut out photos."""
    arguments = parser("Cut the objects out of photos with the trained folds of a run, or with the studio weights.")
    add_cutout_arguments(arguments)
    add_trained_run_arguments(arguments)
    arguments.set_defaults(run=None)
    arguments.add_argument("--fold", type=int, help="use this fold only (default: all that are trained)")
    options = arguments.parse_args(argv)
    kinds = kinds_of(options)
    networks = open_networks(options)
    out = options.out or networks.cutouts
    key = key_of(options, **networks.facts())
    order = Order(out, kinds, options.crop, key, networks.batch_size, networks.inference.readers)

    def load() -> TrainedModel:
        networks.print_notes()
        return networks.load()

    cut_out(options, order, networks.describe(), load)


if __name__ == "__main__":
    run_command(main)
