"""``make masks``: a submission's masks as pictures, for whoever wants masks rather than a score.

They are named as Carvana names those of its training set, and are black and white: every viewer shows them, and
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
from competition.images import Pixels, shape_of
from submissions import submission_file
from submissions.validate import add_submission_arguments, open_submission


def write_pictures(submission: Path, data: DataFolder, folder: Path) -> set[str]:
    """Write ``<car>_<view>_mask.png`` for every row of a submission, over one that is there.

    Args:
        submission: a CSV of img,rle_mask, gzipped or not.
        data: its test photos say how large each mask is.
        folder: made if need be.

    Returns:
        The names of the files.

    Raises:
        Failure: a row is malformed, or names no test photo or one whose mask is written, or a file cannot be
            written.
    """
    paths = {photo.img: photo.path for photo in data.test}
    made_by: dict[str, str] = {}  # picture to image
    rows = tqdm(submission_file.read(submission), total=len(paths), unit="mask", disable=None, leave=False)
    for line, img, code in rows:
        if img not in paths:
            raise Failure(f"{submission} line {line}: {img} is no test photo of {data.root}; name its DATA")
        try:
            mask = rle.decode(code, shape_of(paths[img]))
        except ValueError as error:
            where = f"{submission} line {line}, {img}"
            raise Failure(f"{where}: {error}; `make validate` finds every such row") from error
        name = f"{Path(img).stem}_mask.png"
        if name in made_by:
            raise Failure(f"{submission} line {line}: {img} would overwrite {name} of {made_by[name]}; remove one")
        write_picture(folder / name, mask)
        made_by[name] = img
    return set(made_by)


def write_picture(path: Path, mask: Pixels) -> None:
    """Write an (H, W) uint8 mask of 0 and 1 as a PNG of one bit a pixel, atomically."""
    _, content = cv2.imencode(".png", mask * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the masks of a run's submission, or of any file."""
    arguments = parser("Write the masks of a submission as PNG files.")
    add_submission_arguments(arguments)
    run, file, data = open_submission(arguments.parse_args(argv))
    # Those of a file of one's own lie beside it, and not among those of a run.
    folder = file.with_name("masks" if file == run.submission else f"{file.name.partition('.')[0]}_masks")
    with held(folder / ".lock", f"another `make masks` writes to {folder}; wait for it"):
        names = write_pictures(file, data, folder)
        print(f"{len(names):,} masks in {folder}")
        others = sorted({path.name for path in folder.glob("*_mask.png")} - names)
        if others:
            print(f"note: {len(others):,} others lie there too, such as {others[0]}; they are not of this submission")


if __name__ == "__main__":
    run_command(main)
