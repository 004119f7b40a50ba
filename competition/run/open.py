"""From a command line to a run: its folder, its settings and its data."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.hint import hint, takes_settings
from competition.run.folder import DEFAULT_DATA, RunFolder, run_at
from competition.run.records import Environment
from competition.settings.resolve import (
    Tree,
    load_preset,
    load_settings,
    load_yaml,
    merge,
    parse_assignments,
    resolve,
)
from competition.settings.schema import Settings, flat

# Settings that name another run to learn from, which must have the same split.
SOURCES = ("network.init_from", "data.pseudo")
# Settings that may change between calls, because the trained weights do not depend on them, or, like on the device,
# only by rounding.
CHANGEABLE = (
    *("inference.", "train.workers", "train.cache", "train.save_seconds", "train.compile", "train.cudnn_benchmark"),
    *("data.min_area", "data.max_area"),
)


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the options that name a run, its data and its settings."""
    _add_run(parser)
    parser.add_argument("--data", type=Path, help="data folder; by default the run's own, else data/carvana")
    parser.add_argument("--preset", help="preset, a name or a .yaml file; by default the run's own settings")
    parser.add_argument("--settings", type=Path, help="a .yaml file of settings that override the preset")
    _add_set(parser, "settings that override both, such as train.epochs=50")


def add_trained_run_arguments(parser: ArgumentParser) -> None:
    """Add the options that name a trained run and change its settings of inference."""
    _add_run(parser)
    _add_set(parser, "settings of inference, such as inference.tta=[identity]")
    parser.set_defaults(preset=None, settings=None)


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("--run", default="default", help="name of the run, a folder in runs/, or a path")


def _add_set(parser: ArgumentParser, meaning: str) -> None:
    parser.add_argument("--set", action="extend", nargs="*", default=[], metavar="NAME=VALUE", help=meaning)


def open_run(arguments: Namespace, default_preset: str | None = None) -> tuple[RunFolder, Settings, DataFolder]:
    """Return the run that the command line names, its settings and its data.

    Args:
        arguments: parsed by a parser with ``add_run_arguments``.
        default_preset: the preset of a new run if the command line names none; None if the run must exist.
    """
    run = run_at(arguments.run)
    if run.settings.is_file():
        settings = settings_of_existing_run(run, arguments)
    elif default_preset:
        settings = resolve(merge(load_preset(arguments.preset or default_preset), _overrides(arguments)))
    else:
        raise Failure(f"no run {run.root}; train it first: {hint('train', FOLD=0, RUN=run.called)}")
    return run, settings, data_of(run, arguments.data, settings)


def settings_of_existing_run(run: RunFolder, arguments: Namespace) -> Settings:
    """Return the settings of a run that exists; those that the command line names may differ only if changeable."""
    own = load_settings(run.settings)
    base = load_preset(arguments.preset) if arguments.preset else own.model_dump()
    named = resolve(merge(base, _overrides(arguments)))
    if named.train.batch_size == "auto":  # the run has chosen the number
        named = named.with_batch_size(own.train.batch_size)
    if any(flat(own)[setting] != "none" for setting in SOURCES):  # the run has taken the split of another one
        named = named.with_folds(own.split.folds)
    _require_same_training(run, own, named)
    return named


def data_of(run: RunFolder, named: Path | None, settings: Settings | None = None) -> DataFolder:
    """Return the data folder that the command line names, else the run's own, else the default.

    Args:
        run: the run.
        named: the folder that the command line names.
        settings: of the run; None reads them from the run, if it exists.
    """
    if named is None and run.environment.is_file():
        named = Environment.read(run.environment).folder
    if settings is None:
        settings = load_settings(run.settings) if run.settings.is_file() else Settings()
    return DataFolder(named or DEFAULT_DATA, settings.data)


def next_hint(target: str, run: RunFolder, settings: Settings, data: DataFolder, **variables: object) -> str:
    """The hint for the next command of a run that exists, with the data and settings that are not its own."""
    own, now = flat(load_settings(run.settings)), flat(settings)
    changed = [
        f"{name}={_as_text(now[name])}" for name in now if now[name] != own[name] and name.startswith(CHANGEABLE)
    ]
    same_data = data.root.resolve() == Environment.read(run.environment).folder.resolve()
    given = {"RUN": run.called, "DATA": None if same_data else data.root, **dict.fromkeys(("PRESET", "SETTINGS"))}
    return hint(target, **variables, **given, SET=changed if takes_settings(target) else None)


def _as_text(value: object) -> str:
    """The value of a setting in SET, which has no spaces."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_as_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def require_same_data(run: RunFolder, data: DataFolder) -> None:
    """Raise a Failure unless the training photos are those that the run was made from."""
    made_from = Environment.read(run.environment)
    if made_from.fingerprint != data.fingerprint:
        raise Failure(
            f"the training photos in {data.root} are not those that run {run.name} was made from "
            f"({made_from.data}): names, file sizes or EXIF orientations differ; name that folder with DATA=..., "
            "or use another RUN"
        )


def _overrides(arguments: Namespace) -> Tree:
    """The settings that the command line gives besides the preset."""
    return merge(load_yaml(arguments.settings) if arguments.settings else {}, parse_assignments(arguments.set))


def _require_same_training(run: RunFolder, own: Settings, named: Settings) -> None:
    before, now = flat(own), flat(named)
    changed = [name for name in now if now[name] != before[name] and not name.startswith(CHANGEABLE)]
    if changed:
        difference = ", ".join(f"{name} is {before[name]}, asked for {now[name]}" for name in changed)
        raise Failure(
            f"run {run.name} was made with other settings: {difference}; name a new RUN, or omit PRESET and SET "
            "to continue with the run's own settings"
        )
