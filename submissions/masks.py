"""The masks of a submission as files, for users who want masks rather than a score: ``make masks``.

PNG files are named like Carvana's training masks. They are black and white, so that every viewer shows them, and
``read_mask`` reads them. COCO annotations are one file; see ``submissions.coco``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.files import held, replacing
from competition.images import Pixels
from competition.mask_table import read_rows
from competition.names import without_suffix
from competition.plural import counted
from competition.rle import Shape, Spans
from submissions.coco import write_coco
from submissions.validate import add_submission_arguments, open_submission


def masks_of(submission: Path, data: DataFolder) -> Iterator[tuple[str, Shape, Spans]]:
    """The masks of a submission, one at a time: name, (height, width) and spans of each image.

    Args:
        submission: a CSV of img,rle_mask, plain, gzipped or zipped.
        data: its test photos give the size of each mask.
    """
    photos = {photo.img: photo for photo in data.test}
    line_of: dict[str, int] = {}
    for row in tqdm(read_rows(submission), total=len(photos), unit="mask", disable=None, leave=False):
        if row.img not in photos:
            raise Failure(f"{row.where}: {row.img} is not a test photo of {data.root}; set DATA to its folder")
        if row.img in line_of:
            raise Failure(f"{row.where}: {row.img} is already in line {line_of[row.img]}; remove one row")
        line_of[row.img] = row.line
        shape = photos[row.img].shape
        yield row.img, shape, row.spans(shape)


def write_masks(submission: Path, data: DataFolder, folder: Path) -> set[str]:
    """Write ``<car>_<view>_mask.png`` for every row of a submission, replacing existing files.

    Args:
        submission: a CSV of img,rle_mask, plain, gzipped or zipped.
        data: its test photos give the size of each mask.
        folder: created if it does not exist.

    Returns:
        The names of the files.
    """
    names = set()
    for img, shape, spans in masks_of(submission, data):
        name = f"{without_suffix(img)}_mask.png"
        write_mask(folder / name, rle.to_mask(spans, shape))
        names.add(name)
    return names


def write_mask(path: Path, mask: Pixels) -> None:
    """Write an (H, W) uint8 mask of 0 and 1 as a PNG with one bit per pixel, atomically."""
    _, content = cv2.imencode(".png", mask * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the masks of a run's submission, or of any file."""
    arguments = parser("Write the masks of a submission as PNG files, or as COCO annotations in one JSON file.")
    add_submission_arguments(arguments)
    arguments.add_argument("--format", choices=("png", "coco"), default="png", help="what to write")
    options = arguments.parse_args(argv)
    place, file, data = open_submission(options)
    # The masks of another file have a name of their own, so that they do not mix with those of a run.
    folder = file.with_name("masks" if file == place.submission else f"{file.name.partition('.')[0]}_masks")
    if options.format == "coco":
        annotations = folder.with_name(f"{folder.name}.json")
        with held(folder.with_name(f".{annotations.name}.lock"), f"another `make masks` writes {annotations}"):
            count = write_coco(annotations, masks_of(file, data))
        print(f"{counted(count, 'mask')} in {annotations}")
        return
    with held(folder / ".lock", f"another `make masks` writes to {folder}; wait until it ends"):
        names = write_masks(file, data, folder)
        print(f"{counted(len(names), 'mask')} in {folder}")
        others = sorted({str(path.relative_to(folder)) for path in folder.rglob("*_mask.png")} - names)
        if others:
            print(f"note: {folder} also has {counted(len(others), 'mask')} of other submissions, such as {others[0]}")


if __name__ == "__main__":
    run_command(main)
