"""Read everything in a data folder, list its problems and sum up what is in it: ``make check``."""

import re
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from competition.command import Failure, parser, printable, run_command
from competition.data_folder import DataFolder
from competition.plural import counted
from competition.problems import notes, problems
from competition.run.folder import DEFAULT_DATA
from competition.settings.resolve import parse_assignments, resolve
from competition.settings.schema import Data
from competition.sheet import write_sheet
from competition.summary import Facts, aligned, summary

ALIKE = 10  # problems or notes of one kind that are shown
INVERTED = "looks inverted: most of the photo and of its border is read as car; invert it if the car is the rest"
NAMED = re.compile(r"\S*[\d/.\x27]\S*")  # words with a number, a path, a file or a quoted name


def check(data: DataFolder, *, every: bool = False, sheet: Path | None = None) -> None:
    """Print the problems and the summary of a data folder; fail if there is a problem.

    Args:
        data: the data folder.
        every: print all problems; otherwise ten of each kind.
        sheet: where to write photos with the outlines of their masks; None writes none.
    """
    facts = Facts()
    count = _print_lines(problems(data, facts), every)
    if count:
        print()
    print("\n".join(aligned(summary(data, facts))), flush=True)
    for note in notes(data):
        print(f"note: {note}")
    _print_lines((f"note: the mask of {photo.path} {INVERTED}" for photo in facts.inverted), every)
    if sheet is not None and facts.areas:
        write_sheet(sheet, data, facts.areas)
        print(f"{sheet}: photos with the outlines of their masks; look whether they fit", flush=True)
    if count:
        raise Failure(f"{data.root}: {counted(count, 'problem')}, listed above")
    cars = len({photo.car for photo in facts.train})
    print(
        f"{data.root} is in order: {counted(len(facts.train), 'training photo')} of {counted(cars, 'car')} "
        f"with masks, {counted(len(facts.test), 'test photo')}"
    )


def add_data_settings(arguments: ArgumentParser) -> None:
    """Add the option for settings of the section data."""
    arguments.add_argument(
        "--set", action="extend", nargs="*", default=[], metavar="NAME=VALUE", help="settings such as data.cars=photo"
    )


def data_settings(options: Namespace) -> Data:
    """The settings of the section data in a command line; others are refused."""
    tree = parse_assignments(options.set)
    others = [name for name in options.set if not name.startswith("data.")]
    settings = resolve(tree)
    if others:
        raise Failure(f"only settings of the section data count here, such as data.cars=photo; omit {others[0]}")
    return settings.data


def _print_lines(found: Iterable[str], every: bool) -> int:
    """Print problems or notes, of each kind only the first ones, and return their number."""
    kinds: Counter[str] = Counter()
    for line in found:
        kind = NAMED.sub("", line)
        kinds[kind] += 1
        if every or kinds[kind] <= ALIKE:
            print(printable(line), flush=True)
    hidden = sum(count - ALIKE for count in kinds.values() if count > ALIKE)
    if hidden and not every:
        print(f"... and {hidden:,} more like these; ALL=1 (--all) lists them")
    return kinds.total()


def main(argv: Sequence[str] | None = None) -> None:
    """Check a data folder."""
    arguments = parser("Read every file of a data folder, list what is wrong and sum up what is there.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--hq", action="store_true", help="read train_hq and test_hq where both kinds exist")
    arguments.add_argument("--all", action="store_true", help="list all problems, not ten of each kind")
    arguments.add_argument("--sheet", type=Path, help="PNG to write: nine photos with the outlines of their masks")
    add_data_settings(arguments)
    options = arguments.parse_args(argv)
    options.set += ["data.hq=true"] * options.hq
    check(DataFolder(options.data, data_settings(options)), every=options.all, sheet=options.sheet)


if __name__ == "__main__":
    run_command(main)
