"""Adopt photos and masks: ``python -m competition.adopt --images photos --masks masks --data data/mine``."""

import re
from collections.abc import Sequence
from pathlib import Path

from competition.adopt.naming import Adopted, cars_rule, names_of
from competition.adopt.pairing import Pairing, pair
from competition.adopt.source import Source, absolute, find, photos_in
from competition.adopt.writing import Masks, require_all, write
from competition.check import add_data_settings, check, data_settings
from competition.command import Failure, parser, printable, run_command
from competition.data_folder import DataFolder
from competition.hint import hint
from competition.mask_values import describe_values
from competition.orientation import applies
from competition.settings.schema import Data

SHOWN = 3  # names in a line
COLUMN = 10  # the width of the names of the lines
SHEET = "check.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Pair photos and masks, write the data folder, check it, and print how to train with it."""
    arguments = parser("Make a data folder from photos and masks in another layout; the sources are not changed.")
    arguments.add_argument("--images", type=Path, help="folder of photos; folders inside it are read")
    arguments.add_argument("--masks", type=Path, help="folder of their masks; by default that of the photos")
    arguments.add_argument("--test", type=Path, help="folder of photos to predict, without masks")
    arguments.add_argument("--data", type=Path, help="the data folder to write")
    add_data_settings(arguments)
    options = arguments.parse_args(argv)
    if options.images is None or options.data is None:
        arguments.error("name the folders: make adopt IMAGES=photos MASKS=masks DATA=data/mine")
    if options.data.name in ("", ".."):  # DATA=.
        options.data = absolute(options.data)
    settings, given = data_settings(options), list(options.set)

    written = [options.data, options.data.with_name(f"{options.data.name}.part")]
    source = find(options.images, options.masks or options.images, written)
    pairing = pair(source.photo_files, source.mask_files)
    tests = photos_in(options.test, written) if options.test else []
    print("\n".join(paired(source, pairing)), flush=True)
    if not pairing.pairs:
        raise Failure(f"no mask has the name of a photo; {_saw(source)} (docs/your-photos.md)")
    rule = cars_rule([found.photo for found in pairing.pairs]) if settings.cars == "auto" else settings.cars
    if rule != settings.cars:
        settings, given = settings.model_copy(update={"cars": rule}), [*given, f"data.cars={rule}"]

    adopted = _adopted(source, pairing, settings) + _tests(options.test, tests, settings)
    masks = Masks(adopted)
    require_all(adopted, masks)
    done = write(options.data, adopted, masks)
    for text in describe_values(masks.found):
        print(f"{'values':{COLUMN}}{text}")
    if masks.found and len(masks.found) < len(pairing.pairs):  # resumed
        print(f"{'':{COLUMN}}the other masks were written by an earlier `make adopt` that did not end")
    print(f"{options.data}: {done}\n", flush=True)
    check(DataFolder(options.data, settings), sheet=options.data / SHEET)
    print(f"next: {_next(options.data, given)}")


def paired(source: Source, pairing: Pairing) -> list[str]:
    """What was paired and what is left over, in lines of a name and a text."""
    example = f", such as {pairing.pairs[0].photo} with {pairing.pairs[0].mask}" if pairing.pairs else ""
    lines = [f"{'pairs':{COLUMN}}{printable(f'{len(pairing.pairs):,} of a photo and its mask{example}')}"]
    left_over = {"no mask": pairing.photos, "no photo": pairing.masks, "not read": source.unreadable}
    return lines + [
        f"{name:{COLUMN}}{len(paths):,}, left out: {_few(paths)}" for name, paths in left_over.items() if paths
    ]


def _adopted(source: Source, pairing: Pairing, settings: Data) -> list[Adopted]:
    photos = [found.photo for found in pairing.pairs]
    names = names_of(photos, by_folder=settings.cars == "folder")
    return [
        Adopted("train", img, source.images / found.photo, source.masks / found.mask, _upright(img, settings))
        for img, found in zip(names, pairing.pairs, strict=True)
    ]


def _tests(folder: Path | None, photos: Sequence[Path], settings: Data) -> list[Adopted]:
    if folder is None:
        return []
    root = absolute(folder)
    names = names_of(photos, by_folder=settings.cars == "folder")
    return [
        Adopted("test", img, root / photo, None, _upright(img, settings))
        for img, photo in zip(names, photos, strict=True)
    ]


def _upright(img: str, settings: Data) -> bool:
    return applies(img.rpartition(".")[0], settings.orientation)


def _saw(source: Source) -> str:
    files = [("photos", source.images, source.photo_files), ("masks", source.masks, source.mask_files)]
    return ", ".join(
        f"{len(paths):,} {what} in {folder}{f' ({_few(paths)})' if paths else ''}" for what, folder, paths in files
    )


def _few(paths: Sequence[Path]) -> str:
    return printable(", ".join(map(str, paths[:SHOWN]))) + (", ..." if len(paths) > SHOWN else "")


def _next(data: Path, given: Sequence[str]) -> str:
    run = re.sub(r"[^\w-]+", "-", data.name).strip("-") or "mine"
    return hint("train", DATA=data, PRESET="cpu", RUN=run, SET=list(given))


if __name__ == "__main__":
    run_command(main)
