"""The picture of the README: test photos with the masks of a run's submission."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from competition import files, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.mask_table import read_rows
from competition.run.folder import run_at
from competition.run.records import Environment

TILE = (640, 427)  # width, height
COLOUR = np.array([255, 96, 0], dtype=np.float32)  # RGB


def drawn(photo: Pixels, mask: Pixels) -> Pixels:
    """A tile that shows a photo with its mask tinted and outlined; photo and mask have the same H and W."""
    tinted = photo.astype(np.float32)
    tinted[mask > 0] = 0.72 * tinted[mask > 0] + 0.28 * COLOUR
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    picture = np.ascontiguousarray(tinted.astype(np.uint8))
    cv2.drawContours(picture, outlines, -1, COLOUR.tolist(), max(1, photo.shape[1] // 480), cv2.LINE_AA)
    tile: Pixels = cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA)
    return tile


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    arguments = parser("Draw the masks of a run's submission on its test photos.")
    arguments.add_argument("--run", default="demo", help="name of the run")
    arguments.add_argument("--out", type=Path, default=Path("docs/demo.jpg"), help="the picture")
    arguments.add_argument("--columns", type=int, default=3, help="number of columns")
    arguments.add_argument("--rows", type=int, default=2, help="number of rows")
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    photos = DataFolder(Path(Environment.read(run.environment).data)).test
    codes = {row.img: row.rle for row in read_rows(run.submission)}
    count = options.columns * options.rows
    if len(photos) < count:
        raise Failure(f"{len(photos)} test photos are too few for {count} tiles")
    # Another car and another view in each tile.
    chosen = [photos[(number * len(photos) // count + 3 * number) % len(photos)] for number in range(count)]
    tiles = []
    for photo in chosen:
        image = photo.read()
        tiles.append(drawn(image, rle.decode(codes[photo.img], (image.shape[0], image.shape[1]))))
    rows = [np.hstack(tiles[start : start + options.columns]) for start in range(0, count, options.columns)]
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82]
    )
    assert done
    with files.replacing(options.out) as temporary:
        temporary.write_bytes(content.tobytes())
    print(f"{options.out}: {', '.join(photo.img for photo in chosen)}")


if __name__ == "__main__":
    run_command(main)
