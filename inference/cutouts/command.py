"""What the commands that cut out photos share: with a trained run, and with an exported model."""

import hashlib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from competition.command import Failure, printable
from competition.files import held
from competition.listing import few
from competition.plural import counted
from inference.cutouts import job
from inference.cutouts.job import Order
from inference.cutouts.manifest import Manifest
from inference.cutouts.model import Model
from inference.cutouts.photos import Found, find_photos, require_outside
from inference.cutouts.rendering import KINDS, require_kind

VERSION = 2  # of the pictures; raise it when other pixels are drawn from the same levels


def add_cutout_arguments(parser: ArgumentParser) -> None:
    """Add the options that name photos and pictures."""
    parser.add_argument("photos", nargs="*", metavar="PATH", help="a photo, a folder, or a quoted glob pattern")
    parser.add_argument(
        "--type",
        nargs="+",
        action="extend",
        metavar="KIND",
        help=f"what to write: {', '.join(KINDS)}, or a colour such as white or #ff8800; several are possible "
        "(default: rgba)",
    )
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    parser.add_argument("--crop", action="store_true", help="cut the pictures to the object, with a margin")


def kinds_of(options: Namespace) -> list[str]:
    """The kinds of picture that are asked for."""
    kinds = list(dict.fromkeys(kind.lower() for kind in options.type or ["rgba"]))
    for kind in kinds:
        require_kind(kind)
    return kinds


def key_of(options: Namespace, **facts: Any) -> str:
    """A hash of everything that decides the pictures of a photo."""
    everything = {**facts, "crop": options.crop, "version": VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def cut_out(options: Namespace, order: Order, who: str, load: Callable[[], Model]) -> None:
    """Cut out the photos that the command line names.

    Args:
        options: of a parser with ``add_cutout_arguments``.
        order: what to make.
        who: the networks, for the first line that is printed.
        load: gives the model; called only if there is something to do.

    Raises:
        Failure: photos were skipped; the others are cut out.
    """
    if not options.photos:
        raise Failure("no photos are named; name a photo, a folder or a pattern: make cutout PHOTOS=path")
    if order.out.exists() and not order.out.is_dir():
        raise Failure(f"OUT={order.out} is a file; name a folder for the pictures")
    require_outside(order.out, options.photos)
    found = find_photos(options.photos)
    if found.unread:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.unread.items()))
        print(f"note: images of kinds that are not read: {kinds}; save them as JPEG or PNG")
    if not found.photos and not found.problems:
        raise Failure(f"no photo in {few(options.photos)}: JPEG, PNG, WebP, TIFF, BMP and HEIC files are read")
    with held(order.out / ".cutouts.lock", f"{order.out} is being written by another process"):
        manifest = Manifest(order.out)
        tasks = job.plan(found, manifest, order)
        total = len(found.photos) + len(found.problems)
        if tasks:
            already = f"; {total - len(tasks):,} are there already" if len(tasks) < len(found.photos) else ""
            print(f"cutting out {counted(len(tasks), 'photo')} with {who} -> {order.out}{already}", flush=True)
            outcome = job.run(tasks, manifest, order, load)
        else:
            outcome = job.Outcome()
    _report(found, outcome, order, total)


def _report(found: Found, outcome: job.Outcome, order: Order, total: int) -> None:
    """Print what was done, and every photo that was skipped."""
    problems = found.problems + outcome.problems
    if outcome.empty:
        print(
            f"note: no object found in {counted(len(outcome.empty), 'photo')}: {few(list(map(str, outcome.empty)))}"
        )
    if outcome.written:
        print(f"{order.out}: {counted(outcome.written, 'photo')} cut out ({', '.join(order.kinds)})")
    elif not problems:
        every = f"{'the' if total == 1 else 'all'} {counted(total, 'photo')}"
        print(f"{order.out} has the cut-outs of {every}; nothing to do")
    for problem in problems:
        print(f"skipped: {printable(problem)}", file=sys.stderr)
    if problems:
        raise Failure(f"{len(problems):,} of {counted(total, 'photo')} skipped, for the reasons above")
