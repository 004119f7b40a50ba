"""Which trained runs answer together: one run, or several (``RUNS="a b"``), whose results are a run of their own.

Runs that are to be scored together must have the same split: the network of a fold of each has then seen none of that
fold's cars.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from competition import files
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import held
from competition.run.folder import RunFolder, run_at
from competition.run.open import add_run_arguments, open_run
from competition.run.records import Environment, read_history
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Settings
from folds import ranks
from folds.leakage import require_held_out


def add_member_arguments(parser: ArgumentParser) -> None:
    """The options by which a stage finds its run or runs."""
    add_run_arguments(parser)
    parser.set_defaults(run=None)
    parser.add_argument("--runs", action="extend", nargs="*", default=[], help="trained runs that answer together")


def open_members(arguments: Namespace) -> tuple[RunFolder, Settings, DataFolder, list[RunFolder]]:
    """The run that results go to, its settings and data, and the trained runs that answer.

    With one run, that is the run itself. With several, results go to the run ``--run``, by default ``a+b``, which is
    made with the first one's settings and split.

    Raises:
        Failure: a run does not exist, or the runs differ in their photos or in their split, or have another one
            by now, or whatever ``open_run`` refuses.
    """
    names: list[str] = arguments.runs
    if len(names) < 2:
        if names and arguments.run and run_at(names[0]) != run_at(arguments.run):
            raise Failure(f"RUNS={names[0]} is one run, RUN={arguments.run} another; name several in RUNS, or one")
        arguments.run = arguments.run or (names[0] if names else "default")
        run, settings, data = open_run(arguments)
        members = [run_at(name) for name in Environment.read(run.environment).runs] or [run]
        _require_split(run, members)
        return run, settings, data, members
    members = [run_at(name) for name in names]
    if len({member.root.resolve() for member in members}) < len(members):
        raise Failure(
            f'RUNS="{" ".join(names)}" names a run twice; inference.member_weights says how much each counts'
        )
    for member in members:
        if not member.settings.is_file():
            raise Failure(f"no run {member.root}; RUNS must name trained runs")
        if member.folds.read_bytes() != members[0].folds.read_bytes():
            raise Failure(
                f"runs {members[0].name} and {member.name} have different splits, so that a fold of one has been "
                "seen by the other; train them from the same folds.csv"
            )
        first, own = (Environment.read(run.environment) for run in (members[0], member))
        if own.fingerprint != first.fingerprint:  # data.hq too is other photos
            raise Failure(
                f"runs {members[0].name} and {member.name} were made from different photos, those of "
                f"{first.data} and {own.data}; all would be shown the first ones; name runs of the same"
            )
    together = (
        run_at(arguments.run)
        if arguments.run
        else RunFolder(members[0].root.parent / "+".join(member.name for member in members))
    )
    if ranks.first():
        _make_together(together, members)
    ranks.barrier()
    arguments.run = str(together.root)
    run, settings, data = open_run(arguments)
    _require_split(run, members)
    return run, settings, data, members


def checkpoints(members: Sequence[RunFolder], fold: int) -> list[Path]:
    """The weights of a fold in each member.

    Raises:
        Failure: one is missing, and the line says which command makes it; or it may have seen the fold's cars.
    """
    paths = [member.best(fold) for member in members]
    for member, path in zip(members, paths, strict=True):
        if not path.is_file():
            train = f"make train FOLD={fold} RUN={member.called}"
            raise Failure(f"fold {fold} is not trained, {path} is missing: {train}")
        require_held_out(member, fold)
    return paths


def one_at_a_time(run: RunFolder) -> AbstractContextManager[None]:
    """Hold a run against another command that would predict or score it meanwhile."""
    busy = f"run {run.name} is being predicted or scored by another process"
    return ranks.entered_by_first(held(run.root / ".inference.lock", busy))


def print_unfinished(members: Sequence[RunFolder], folds: Sequence[int]) -> None:
    """Say which folds answer with weights whose training has not ended."""
    for member in members:
        epochs = resolve(load_yaml(member.settings)).train.epochs
        for fold in folds:
            done = len(read_history(member.history(fold)))
            if done < epochs:
                print(f"note: fold {fold} of run {member.name} has trained {done} of {epochs} epochs")


def _make_together(together: RunFolder, members: Sequence[RunFolder]) -> None:
    """Write the folder of the common results, unless it is there."""
    names = [str(member.root) for member in members]
    if together.settings.is_file():
        if Environment.read(together.environment).runs != names:
            raise Failure(f"{together.root} is a run of its own, not that of {' and '.join(names)}; name another RUN")
        return
    first = members[0]
    Environment.read(first.environment).model_copy(update={"runs": names}).write(together.environment)
    files.write_text(together.folds, first.folds.read_text(encoding="utf-8"))
    files.write_text(together.settings, first.settings.read_text(encoding="utf-8"))


def _require_split(run: RunFolder, members: Sequence[RunFolder]) -> None:
    """Raise a Failure unless the members still have the split that the run of their results was made with.

    It keeps a copy. Members trained anew with another split have seen cars that the copy holds out for their folds.
    """
    for member in members:
        if member == run:  # it answers alone
            continue
        if not member.folds.is_file() or member.folds.read_bytes() != run.folds.read_bytes():
            names = " ".join(each.called for each in members)
            raise Failure(
                f"{member.folds} is not the split that {run.root} was made with; remove the folder {run.root} and "
                f'score again: make score RUN={run.called} RUNS="{names}"'
            )
