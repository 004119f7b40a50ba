"""The files of a packed run.

    settings.yaml, environment.json, folds.csv            what makes it a run
    fold<n>/best.safetensors, fold<n>/history.jsonl       the trained networks
    cv.json, oof.csv.gz, oof_scores.csv                   the CV
    README.md, SHA256SUMS                                 model card and checksums

    first-stage/fold<n>/history.jsonl                     of the first stage of the training, if there is one

With its state, to resume elsewhere: ``fold<n>/last.pt`` and ``pseudo.csv.gz``, the same files of the first stage and
its weights, and the finished shards of a score, submission or pseudo-labels that are not complete.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from competition.command import Failure
from competition.run.folder import RunFolder

NAMES = RunFolder(Path())  # relative paths
FOLD = re.compile(r"fold(\d{1,3})")
SHARD_TYPES = (".csv.gz", ".npy", ".json")
# What a pickle in last.pt may name: torch's tensors and Python's containers. The trainer reads the file with
# torch.load(weights_only=True), which accepts little more.
HARMLESS = {"collections OrderedDict", "torch.serialization _get_layout", "torch.storage UntypedStorage"}
HARMLESS_MODULES = re.compile(
    r"torch(\._utils)? (_rebuild_\w+|\w+Storage|bfloat16|float\d+|u?int\d+|bool|Size|device)"
)
# These take a callable from the stack or from a registry instead of from a name.
OPAQUE = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}


def of_networks(run: RunFolder) -> list[Path]:
    """The files of a run that describe and score its networks, those that exist."""
    folds = [path for number in fold_numbers(run) for path in (run.best(number), run.history(number))]
    first = [run.first_stage.history(number) for number in fold_numbers(run)]
    return existing(run.settings, run.environment, run.folds, *folds, *first, run.cv, run.oof, run.oof_scores)


def of_state(run: RunFolder) -> list[Path]:
    """The files that an interrupted training or prediction resumes from, those that exist."""
    folds = [
        path
        for each in (run, run.first_stage)
        for number in fold_numbers(run)
        for path in (each.last(number), each.learned_pseudo(number))
    ]
    folds += [run.first_stage.best(number) for number in fold_numbers(run)]
    shards = [
        path
        for folder in (run.oof_shards, run.submission_shards, run.pseudo_shards)
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(SHARD_TYPES) and not path.name.startswith(".")
    ]
    return existing(*folds, *shards)


def fold_numbers(run: RunFolder) -> list[int]:
    """The folds of a run that have a folder."""
    found = (FOLD.fullmatch(path.name) for path in run.root.glob("fold*"))
    return sorted(int(match[1]) for match in found if match)


def existing(*paths: Path) -> list[Path]:
    """Those of the paths that are files."""
    return [path for path in paths if path.is_file()]


def is_packed(name: str) -> bool:
    """Whether a relative path, with slashes, is that of a file of a packed run."""
    path = PurePosixPath(name)
    if str(path) != name or path.is_absolute() or any(part.startswith(".") for part in path.parts):
        return False
    return name in set(_names(path)) or (
        any(path.is_relative_to(folder.as_posix()) for folder in _shard_folders()) and name.endswith(SHARD_TYPES)
    )


def require_harmless(path: Path) -> None:
    """Raise a Failure if a last.pt names anything but tensors; it is looked at without being loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            for name in pickles:
                with archive.open(name) as file:
                    _require_harmless_pickle(path, file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise Failure(f"{path.name} is not a file of torch.save ({error}); get another copy") from error
    if len(pickles) != 1:
        raise Failure(f"{path.name} is not a file of torch.save (it holds {len(pickles)} pickles); get another copy")


def _require_harmless_pickle(path: Path, file: IO[bytes]) -> None:
    for operation, argument, _ in pickletools.genops(file):
        named = str(argument) if operation.name == "GLOBAL" else operation.name
        bad = operation.name in OPAQUE or (operation.name == "GLOBAL" and not _is_harmless(named))
        if bad:
            raise Failure(
                f"{path.name} is a pickle that names {named.replace(' ', '.')}, which may run code when it is "
                "loaded; do not use this file"
            )


def _is_harmless(named: str) -> bool:
    return named in HARMLESS or HARMLESS_MODULES.fullmatch(named) is not None


def _names(path: PurePosixPath) -> Iterator[str]:
    """The names of the run's files, and of those in the fold's folder in which a path lies."""
    run = NAMES.first_stage if path.is_relative_to(NAMES.first_stage.root.as_posix()) else NAMES
    match = FOLD.fullmatch(path.parent.name)
    fold = int(match[1]) if match else 0
    of_run = (NAMES.settings, NAMES.environment, NAMES.folds, NAMES.cv, NAMES.oof, NAMES.oof_scores)
    of_fold = (each(fold) for each in (run.best, run.history, run.last, run.learned_pseudo))
    for each in (*of_run, *of_fold, NAMES.model_card, NAMES.checksums):
        yield each.as_posix()


def _shard_folders() -> tuple[Path, ...]:
    return NAMES.oof_shards, NAMES.submission_shards, NAMES.pseudo_shards
