"""The picture of the README: photos of generated cars, their masks and their cut-outs.

make synthetic DATA=data/synthetic
make train FOLD=0 RUN=picture PRESET=cpu DATA=data/synthetic
python -m benchmarks.picture --run picture
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.foreground import predicted
from competition import files
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.run.folder import run_at
from competition.run.records import Environment
from inference.cutouts.rendering import render

TILE = (480, 320)  # width, height
SQUARE = 16  # of the checkerboard, in pixels of a tile
COLOUR = "#2f6f8f"
QUALITY = 80


def row(photo: Pixels, levels: Pixels, threshold: float) -> Pixels:
    """A photo, its overlay, its cut-out on a checkerboard and on a colour, beside each other."""
    overlay, rgba, on_colour = (render(photo, levels, threshold, kind) for kind in ("overlay", "rgba", COLOUR))
    return np.hstack([*map(tile, (photo, overlay)), on_checkerboard(rgba), tile(on_colour)])


def tile(picture: Pixels) -> Pixels:
    """A picture at the size of a tile."""
    return np.asarray(cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA))


def on_checkerboard(rgba: Pixels) -> Pixels:
    """A tile of a cut-out, (H, W, 4), before gray and white squares, as image editors show it."""
    y, x = np.ogrid[: TILE[1], : TILE[0]]
    board = np.where((y // SQUARE + x // SQUARE) % 2, 255, 205)[..., None]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    # Weighted by opacity, because a resized picture would mix the colours of transparent pixels into the edges.
    weighted = cv2.resize(np.dstack([rgba[..., :3] * alpha, alpha]), TILE, interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(weighted[..., :3] + (1 - weighted[..., 3:]) * board), np.uint8)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    arguments = parser("Draw photos, masks and cut-outs of a run's test photos.")
    arguments.add_argument("--run", default="picture", help="name of the run")
    arguments.add_argument("--fold", type=int, default=0, help="the fold whose network predicts")
    arguments.add_argument("--photos", nargs="+", help="names of test photos, one for each row; by default two")
    arguments.add_argument("--out", type=Path, default=Path("docs/demo.jpg"), help="the picture")
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    photos = {photo.img: photo for photo in DataFolder(Environment.read(run.environment).folder).test}
    names = options.photos or list(photos)[1 :: max(1, len(photos) // 2)][:2]
    unknown = sorted(set(names) - photos.keys())
    if unknown or not names:
        raise Failure(f"the data of {run.called} has no test photo {''.join(unknown[:1])}".rstrip())
    model = run.best(options.fold)
    rows = [row(photos[name].read(), predicted(model, photos[name]), 0.5) for name in names]
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    assert done
    with files.replacing(options.out) as temporary:
        temporary.write_bytes(content.tobytes())
    print(f"{options.out}: {', '.join(names)}, {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    run_command(main)
