"""From a command line to a run: its folder, its settings and its data."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.folder import DEFAULT_DATA, RunFolder, run_at
from competition.run.records import Environment
from competition.settings.resolve import load_preset, load_yaml, merge, parse_assignments, resolve
from competition.settings.schema import Settings, flat

# Settings that name another run to learn from, which must have the same split.
SOURCES = ("network.init_from", "data.pseudo")
# What may differ from one call to the next, because it does not change what the training computes.
FREE = ("inference.", "train.workers", "train.cache", "train.save_seconds")


def add_run_arguments(parser: ArgumentParser) -> None:
    """The options by which a stage finds its run, its data and its settings."""
    parser.add_argument("--run", default="default", help="name of the run, a folder below runs/, or a path")
    parser.add_argument("--data", type=Path, help="data folder; by default the run's own, else data/carvana")
    parser.add_argument("--preset", help="preset, by name or as a .yaml file; by default the run's own settings")
    parser.add_argument("--settings", type=Path, help="a .yaml file of settings over the preset")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings over both, such as train.epochs=50",
    )


def open_run(arguments: Namespace, default_preset: str | None = None) -> tuple[RunFolder, Settings, DataFolder]:
    """The run that the command line names, with its settings and its data.

    Args:
        arguments: what a parser with ``add_run_arguments`` parsed.
        default_preset: what a new run is made from when the command line names no preset; None where the stage
            needs a run that exists.

    Raises:
        Failure: the run does not exist, or exists with other settings (the difference is shown), or a setting is
            wrong, or there is no data folder.
    """
    run = run_at(arguments.run)
    if run.settings.is_file():
        settings = _settings_of_existing(run, arguments)
        return run, settings, data_of(run, arguments.data, settings)
    if default_preset is None:
        raise Failure(f"no run {run.root}; train it first: make train FOLD=0 RUN={run.called}")
    settings = resolve(_asked_for(arguments, default_preset))
    return run, settings, data_of(run, arguments.data, settings)


def data_of(run: RunFolder, asked: Path | None, settings: Settings | None = None) -> DataFolder:
    """The data folder that is asked for, else the one that the run was made from, else the default.

    Args:
        run: the run.
        asked: what the command line names.
        settings: of the run; None reads them, where there are any.

    Raises:
        Failure: there is no such folder, or a file of the run is damaged.
    """
    if asked is None and run.environment.is_file():
        asked = Path(Environment.read(run.environment).data)
    if settings is None:
        settings = resolve(load_yaml(run.settings) if run.settings.is_file() else {})
    return DataFolder(asked or DEFAULT_DATA, hq=settings.data.hq)


def _asked_for(arguments: Namespace, preset: str) -> dict[str, Any]:
    """Preset < file < SET, as nested dicts."""
    return merge(
        load_preset(arguments.preset or preset),
        load_yaml(arguments.settings) if arguments.settings else {},
        parse_assignments(arguments.set),
    )


def _settings_of_existing(run: RunFolder, arguments: Namespace) -> Settings:
    stored = load_yaml(run.settings)
    if not stored:
        raise Failure(f"{run.settings} is empty; put back what the run was made with, or use another RUN")
    try:
        own = resolve(stored)
    except Failure as problem:
        raise Failure(
            f"{run.settings}: {problem}; the run needs the version that made it, or use another RUN"
        ) from problem
    if arguments.preset:
        asked = resolve(_asked_for(arguments, arguments.preset))
    else:
        over = load_yaml(arguments.settings) if arguments.settings else {}
        asked = resolve(merge(stored, over, parse_assignments(arguments.set)))
    if asked.train.batch_size == "auto":  # whatever number that was when the run began
        asked = asked.with_batch_size(own.train.batch_size)
    if any(flat(own)[setting] != "none" for setting in SOURCES):  # its split is that run's
        asked = asked.with_folds(own.split.folds)
    before, now = flat(own), flat(asked)
    changed = [name for name in now if now[name] != before[name] and not name.startswith(FREE)]
    if changed:
        difference = ", ".join(f"{name} is {before[name]}, asked for {now[name]}" for name in changed)
        raise Failure(
            f"run {run.name} was made with other settings: {difference}; name a new RUN for them, or leave PRESET "
            "and SET away to go on with the run's own"
        )
    return asked
