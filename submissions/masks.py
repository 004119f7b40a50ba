"""The masks of a submission as PNG files, for users who want masks rather than a score: ``make masks``.

The files are named like Carvana's training masks. They are black and white, so that every viewer shows them, and
``read_mask`` reads them.
"""

from collections.abc import Sequence
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
from submissions.validate import add_submission_arguments, open_submission


def write_masks(submission: Path, data: DataFolder, folder: Path) -> set[str]:
    """Write ``<car>_<view>_mask.png`` for every row of a submission, replacing existing files.

    Args:
        submission: a CSV of img,rle_mask, plain, gzipped or zipped.
        data: its test photos give the size of each mask.
        folder: created if it does not exist.

    Returns:
        The names of the files.
    """
    photos = {photo.img: photo for photo in data.test}
    image_of: dict[str, str] = {}  # name of the mask file to name of the image
    for row in tqdm(read_rows(submission), total=len(photos), unit="mask", disable=None, leave=False):
        if row.img not in photos:
            raise Failure(f"{row.where}: {row.img} is not a test photo of {data.root}; set DATA to its folder")
        shape = photos[row.img].shape
        mask = rle.to_mask(row.spans(shape), shape)
        name = f"{without_suffix(row.img)}_mask.png"
        if name in image_of:
            raise Failure(f"{row.where}: {row.img} would overwrite {name} of {image_of[name]}; remove one row")
        write_mask(folder / name, mask)
        image_of[name] = row.img
    return set(image_of)


def write_mask(path: Path, mask: Pixels) -> None:
    """Write an (H, W) uint8 mask of 0 and 1 as a PNG with one bit per pixel, atomically."""
    _, content = cv2.imencode(".png", mask * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the masks of a run's submission, or of any file."""
    arguments = parser("Write the masks of a submission as PNG files.")
    add_submission_arguments(arguments)
    run, file, data = open_submission(arguments.parse_args(argv))
    # The masks of another file get a folder of their own, so that they do not mix with those of a run.
    folder = file.with_name("masks" if file == run.submission else f"{file.name.partition('.')[0]}_masks")
    with held(folder / ".lock", f"another `make masks` writes to {folder}; wait until it ends"):
        names = write_masks(file, data, folder)
        print(f"{len(names):,} masks in {folder}")
        others = sorted({str(path.relative_to(folder)) for path in folder.rglob("*_mask.png")} - names)
        if others:
            print(f"note: {folder} also has {len(others):,} masks of other submissions, such as {others[0]}")


if __name__ == "__main__":
    run_command(main)
