"""``make pack``: a run as one zip file, to share it or to resume it elsewhere."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from competition.command import Failure, parser, run_command
from competition.files import replacing
from competition.hint import hint
from competition.plural import counted
from competition.run.contents import of_networks, of_state
from competition.run.folder import RunFolder, run_at
from competition.run.model_card import model_card
from competition.run.records import Environment

FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: the same run gives the same bytes


def pack(run: RunFolder, file: Path, state: bool) -> list[str]:
    """Write a run to a zip file, and return the names of its files.

    Args:
        run: the run.
        file: the zip file to write.
        state: add the state of its trainings and predictions. Without it the file may be shared, so the path of the
            data folder is left out.
    """
    paths = paths_to_pack(run, state)
    before = _stamps(paths)
    sums = {}
    with replacing(file) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:  # stored: weights do not compress
            for path in paths:
                name = path.relative_to(run.root).as_posix()
                member = f"{run.name}/{name}"
                if path == run.environment and not state:
                    sums[name] = _add_text(archive, member, Environment.read(path).shared.text)
                else:
                    sums[name] = _add(archive, member, path)
            card = f"{run.name}/{run.model_card.name}"
            sums[run.model_card.name] = _add_text(archive, card, model_card(run))
            lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
            _add_text(archive, f"{run.name}/{run.checksums.name}", lines)
        if _stamps(paths) != before:
            raise Failure(f"run {run.name} changed while it was packed (is it training?); wait, then run this again")
    return list(sums)


def paths_to_pack(run: RunFolder, state: bool) -> list[Path]:
    """The files of a run to pack, or a Failure if nothing in it is trained."""
    if not run.settings.is_file():
        raise Failure(f"no run {run.root}; RUN must name a trained run")
    members = Environment.read(run.environment).runs
    if members:
        raise Failure(f"run {run.name} combines the runs {', '.join(members)}; pack each of them")
    paths = of_networks(run) + (of_state(run) if state else [])
    trained = {run.best(0).name} | ({run.last(0).name} if state else set())
    if not any(path.name in trained for path in paths):
        started = "" if state else "; if a training has begun, add STATE=1 to resume it elsewhere"
        raise Failure(f"no fold of run {run.name} is trained: {hint('train', FOLD=0, RUN=run.called)}{started}")
    return paths


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """Add a file, and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as source, archive.open(_member(name), "w", force_zip64=True) as target:
        while block := source.read(1 << 20):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _add_text(archive: zipfile.ZipFile, name: str, text: str) -> str:
    """Add a file with this text, and return its SHA-256."""
    archive.writestr(_member(name), text)
    return hashlib.sha256(text.encode()).hexdigest()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, FIRST_DATE)
    member.external_attr = 0o100644 << 16  # a regular file
    return member


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What changes if a file is replaced."""
    stamps = [path.stat() for path in paths]
    return [(stamp.st_ino, stamp.st_size, stamp.st_mtime_ns) for stamp in stamps]


def main(argv: Sequence[str] | None = None) -> None:
    """Pack a run."""
    arguments = parser("Write a run as one zip file: settings, split, weights, CV, model card, checksums.")
    arguments.add_argument("--run", default="default", help="name of the run, a folder in runs/, or a path")
    arguments.add_argument("--file", type=Path, help="zip file to write; by default runs/<run>.zip")
    arguments.add_argument(
        "--state", action="store_true", help="add what an interrupted training or prediction resumes from"
    )
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    file = options.file or run.packed
    names = pack(run, file, options.state)
    folds = sorted(name.partition("/")[0] for name in names if name.endswith(run.best(0).name))
    print(
        f"{file}: {', '.join(folds) or 'no finished epoch'}, {counted(len(names), 'file')}, "
        f"{file.stat().st_size / 1e6:,.1f} MB  next: {hint('unpack', FILE=file)}"
    )


if __name__ == "__main__":
    run_command(main)
