"""The runs that predict together: one, or several (``RUNS="a b"``), whose results form a combined run.

All members must have the same split: then the networks of a fold have seen none of its cars.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from competition import files
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import held
from competition.hint import hint
from competition.plural import counted
from competition.run.folder import Predicted, RunFolder, run_at
from competition.run.open import add_run_arguments, open_run
from competition.run.records import Environment, read_history
from competition.settings.resolve import load_settings
from competition.settings.schema import Settings
from folds import ranks
from folds.leakage import require_held_out


def add_member_arguments(parser: ArgumentParser) -> None:
    """Add the options that name a run or several runs."""
    add_run_arguments(parser)
    parser.set_defaults(run=None)
    parser.add_argument("--runs", action="extend", nargs="*", default=[], help="trained runs that predict together")


def open_members(arguments: Namespace) -> tuple[RunFolder, Settings, DataFolder, list[RunFolder]]:
    """The run for the results, its settings and data, and the trained runs that predict.

    A single run is its own member. Several runs need a combined run for their results: ``--run``, by default ``a+b``.
    It is created with the settings and the split of the first member.
    """
    if len(arguments.runs) < 2:
        arguments.run = _single_name(arguments)
        run, settings, data = open_run(arguments)
        members = members_of(run)
    else:
        members = [run_at(name) for name in arguments.runs]
        environment = _common_environment(members, arguments.runs)
        name = "+".join(member.name for member in members)
        combined = run_at(arguments.run) if arguments.run else RunFolder(members[0].root.parent / name)
        if ranks.first():
            _create_combined(combined, members, environment)
        ranks.barrier()
        arguments.run = str(combined.root)
        run, settings, data = open_run(arguments)
        _require_split(run, members)
    return run, settings, data, members


def members_of(run: RunFolder) -> list[RunFolder]:
    """The trained runs whose networks predict for a run: those it combines, or the run itself."""
    members = [run_at(name) for name in Environment.read(run.environment).runs] or [run]
    _require_split(run, members)
    return members


def checkpoints(members: Sequence[RunFolder], fold: int) -> list[Path]:
    """The weights of a fold of each member; a Failure if they are missing or may have seen the fold's cars."""
    paths = [member.best(fold) for member in members]
    for member, path in zip(members, paths, strict=True):
        if not path.is_file():
            train = hint("train", FOLD=fold, RUN=member.called)
            raise Failure(f"fold {fold} is not trained, {path} is missing: {train}")
        require_held_out(member, fold)
    return paths


def one_at_a_time(place: Predicted) -> AbstractContextManager[None]:
    """Lock a run against other commands that predict or score it, or the masks of other data."""
    busy = f"{place.root} is being predicted or scored by another process"
    return ranks.entered_by_first(held(place.lock, busy))


def print_unfinished(members: Sequence[RunFolder], folds: Sequence[int]) -> None:
    """Print which folds have weights of a training that is not finished."""
    for member in members:
        epochs = load_settings(member.settings).train.epochs
        for fold in folds:
            done = len(read_history(member.history(fold)))
            if done < epochs:
                print(f"note: fold {fold} of run {member.name} has trained {done} of {counted(epochs, 'epoch')}")


def _single_name(arguments: Namespace) -> str:
    """The name of the run if RUNS names one run or none."""
    name: str | None = arguments.run
    names: list[str] = arguments.runs
    if not names:
        return name or "default"
    if name and run_at(names[0]) != run_at(name):
        raise Failure(f"RUNS={names[0]} and RUN={name} are different runs; use one of them, or several in RUNS")
    return name or names[0]


def _common_environment(members: Sequence[RunFolder], names: Sequence[str]) -> Environment:
    """The environment of the first of different trained runs, which must have the same split and the same photos."""
    if len({member.root.resolve() for member in members}) < len(members):
        raise Failure(
            f'RUNS="{" ".join(names)}" names a run twice; set inference.member_weights to give a run more weight'
        )
    first, environments = members[0], []
    for member in members:
        if not member.settings.is_file():
            raise Failure(f"no run {member.root}; RUNS must name trained runs")
        if member.folds.read_bytes() != first.folds.read_bytes():
            raise Failure(
                f"runs {first.name} and {member.name} have different splits, so a network of one may "
                "have seen cars that the other holds out; train both with the same folds.csv"
            )
        environments.append(Environment.read(member.environment))
        ours, theirs = environments[0], environments[-1]
        if theirs.fingerprint != ours.fingerprint:  # data.hq selects different photos, too
            raise Failure(
                f"runs {first.name} and {member.name} were made from different photos, in {ours.data} and "
                f"{theirs.data}; name runs that were made from the same photos"
            )
    return environments[0]


def _create_combined(combined: RunFolder, members: Sequence[RunFolder], environment: Environment) -> None:
    """Create the folder of the combined run, or check that it belongs to these members."""
    names = [str(member.root) for member in members]
    if combined.settings.is_file():
        if Environment.read(combined.environment).runs != names:
            raise Failure(
                f"{combined.root} is another run, not the combined run of {' and '.join(names)}; name another RUN"
            )
        return
    first = members[0]
    environment.model_copy(update={"runs": names}).write(combined.environment)
    for source, copy in ((first.folds, combined.folds), (first.settings, combined.settings)):
        with files.replacing(copy) as temporary:  # byte by byte: splits are compared by their bytes
            temporary.write_bytes(source.read_bytes())


def _require_split(run: RunFolder, members: Sequence[RunFolder]) -> None:
    """Require that members still have the split of the combined run.

    The combined run has a copy. Members that were trained again with another split have seen cars that the copy holds
    out.
    """
    for member in members:
        if member == run:  # a single run
            continue
        if not member.folds.is_file() or member.folds.read_bytes() != run.folds.read_bytes():
            again = hint("score", RUN=run.called, RUNS=[each.called for each in members])
            raise Failure(
                f"{member.folds} is not the split that {run.root} was made with; remove the folder {run.root} and "
                f"score again: {again}"
            )
