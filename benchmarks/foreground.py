"""How well the colours at the edges of a cut-out are cleaned of the background, and the width of its soft edges.

Cars with known colours F and opacity a are composed over known backgrounds B: I = a F + (1 - a) B. Without DATA these
are generated cars, rendered at three times the size and averaged. With DATA they are cars of its photos, whose masks
are eroded and softened, so that the colours at the new edges are those of the car.

The studio weights, or with ``--run`` a network of the run, predict the opacity, for several widths of the soft edge.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.material import first, settings_of
from benchmarks.measure import Target, in_turns, medians, print_rows, report
from competition.command import parser, run_command
from competition.data_folder import DataFolder, photo_at
from competition.images import Pixels
from competition.photo import Photo
from competition.run.folder import run_at
from competition.studio.camera import FRAME, VIEWS, camera_of_shoot
from competition.studio.car import build
from competition.studio.catalogue import entry_of
from competition.studio.render import layers
from competition.studio.room import room_of_shoot
from folds.checkpoint import load_weights
from folds.frame import Frame
from folds.networks.whole import studio_weights
from folds.validation import to_levels
from inference.cutouts.foreground import Floats, foreground
from inference.cutouts.rendering import alpha_of

Way = Callable[[Pixels, Floats], Pixels]

TIMES = 3  # generated cars are rendered at so many times the size of the photo
LENS = 0.85  # standard deviation of the blur of the studio's lens, in pixels
NOISE = 1.7  # standard deviation of the noise of the sensor, in levels
ERODED = 9  # pixels that masks of real photos lose
AUTHORS = (90, 6)
EDGES = (1.0, 2.0, 3.0, 4.0, 6.0)
PRESETS = ("gpu", "cpu", "scratch", "demo")
THIN = 9  # pixels; a part of a mask that is thinner counts as thin
NEW = {"white": (255, 255, 255), "black": (0, 0, 0), "green": (20, 150, 40)}


class Scene(NamedTuple):
    """A car before a background: colours (H, W, 3) and opacity (H, W) of the car, and colours behind it."""

    front: Floats
    alpha: Floats
    back: Floats


def generated(seed: int, size: tuple[int, int], times: int = TIMES) -> Scene:
    """A generated car in its studio, with the coverage of each pixel of a photo of this (width, height)."""
    rng = np.random.default_rng(seed)
    camera = camera_of_shoot(rng, size[0] * times, size[1] * times)
    entry = entry_of(rng)
    room = room_of_shoot(rng, camera)
    back, car = layers(build(entry.kind, rng), room, camera, int(rng.integers(1, VIEWS + 1)))
    shown = (car[..., 3] >> 7).astype(np.float32)

    def seen(image: Floats) -> Floats:
        reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        blurred: Floats = cv2.GaussianBlur(reduced, (0, 0), LENS)
        return blurred

    alpha = seen(shown)
    alpha = np.where(alpha < 1 / 510, 0, np.where(alpha > 509 / 510, 1, alpha)).astype(np.float32)
    colours = seen(car[..., :3] * shown[..., None])
    front = np.where(alpha[..., None] > 0, colours / np.maximum(alpha, 1 / 510)[..., None], 0)
    return Scene(np.clip(front, 0, 255).astype(np.float32), alpha, seen(back.astype(np.float32)))


def labelled(photo: Pixels, mask: Pixels) -> Scene:
    """The car of a photo within its eroded mask, before the same photo upside down."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (ERODED, ERODED))
    alpha = cv2.GaussianBlur(cv2.erode(mask, kernel).astype(np.float32), (5, 5), LENS)
    front = photo.astype(np.float32)
    return Scene(front, np.clip(alpha, 0, 1), np.ascontiguousarray(front[::-1]))


def backgrounds(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Names and colours (H, W, 3) of what the car stands in front of."""
    yield "photo", scene.back
    for name in ("white", "black", "green"):
        yield name, np.broadcast_to(np.array(NEW[name], np.float32), scene.back.shape)
    coarse = rng.uniform(0, 255, (40, 60, 3)).astype(np.float32)
    size = scene.back.shape[1], scene.back.shape[0]
    yield "texture", np.clip(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), 0, 255)


def composed(front: Floats, alpha: Floats, back: Floats) -> Floats:
    """The car before a background, (H, W, 3) float32."""
    return alpha[..., None] * front + (1 - alpha[..., None]) * back


def taken(front: Floats, alpha: Floats, back: Floats, rng: np.random.Generator) -> Pixels:
    """A photo of the car before a background, with the noise of a sensor."""
    noise = rng.normal(0, NOISE, front.shape)
    return np.clip(np.rint(composed(front, alpha, back) + noise), 0, 255).astype(np.uint8)


def ways() -> Mapping[str, Way]:
    """How the colours are estimated."""
    found: dict[str, Way] = {
        "not cleaned": lambda photo, alpha: photo,
        "cleaned": foreground,
        f"windows {AUTHORS[0]} and {AUTHORS[1]}": lambda photo, alpha: foreground(photo, alpha, AUTHORS),
    }
    if find_spec("pymatting"):
        from pymatting import estimate_foreground_ml

        def multi_level(photo: Pixels, alpha: Floats) -> Pixels:
            estimated = estimate_foreground_ml(photo / 255.0, alpha.astype(np.float64))
            return np.asarray(np.rint(np.clip(estimated, 0, 1) * 255), np.uint8)

        found["pymatting, multi-level"] = multi_level
    return found


def colour_errors(scenes: Sequence[Scene], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Mean absolute errors in levels of 255 by background and way: of the colours, and of the recomposed picture.

    They are over pixels with an opacity of 0.02 to 0.98. The opacity is known, so the error of the recomposed
    picture, a |F - estimated F|, is the same on every new background.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for scene in scenes:
        edge = (scene.alpha > 0.02) & (scene.alpha < 0.98)
        for name, back in backgrounds(scene, rng):
            photo = taken(scene.front, scene.alpha, back, rng)
            for way, estimate in ways().items():
                wrong = np.abs(estimate(photo, scene.alpha)[edge] - scene.front[edge])
                errors = float(wrong.mean()), float((wrong * scene.alpha[edge][:, None]).mean())
                found.setdefault(name, {}).setdefault(way, []).append(errors)
    return {
        name: {
            way: dict(zip(("colours", "recomposed"), np.mean(errors, axis=0).tolist(), strict=True))
            for way, errors in rows.items()
        }
        for name, rows in found.items()
    }


def opacity_errors(scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Mean absolute errors of the opacity at the edges and at thin parts, if a network predicts the mask perfectly.

    Its levels are the mask in the frame of a preset, blurred by a pixel of the frame.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for scene in scenes:
        mask = (scene.alpha >= 0.5).astype(np.uint8)
        near = _around((scene.alpha > 0.02) & (scene.alpha < 0.98), 9)
        thin = near & _around(mask > cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((THIN, THIN), np.uint8)), 5)
        for preset in PRESETS:
            frame = Frame.of(settings_of(preset).input)
            soft = cv2.GaussianBlur(frame.target(mask), (0, 0), 1)
            wrong = np.abs(alpha_of(frame.full_size(np.asarray(soft), mask.shape), 0.5) - scene.alpha)
            name = f"{frame.width} x {frame.height}"
            found.setdefault(name, []).append((float(wrong[near].mean()), float(wrong[thin].mean())))
    return {
        name: dict(zip(("edges", "thin parts"), np.mean(errors, axis=0).tolist(), strict=True))
        for name, errors in found.items()
    }


def _around(pixels: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """The pixels, and those in windows of this size around them."""
    return np.asarray(cv2.dilate(pixels.astype(np.uint8), np.ones((size, size), np.uint8)) > 0)


def predicted(model: Path, photo: Photo) -> Pixels:
    """The levels, (H, W) uint8, that a network predicts for a photo."""
    network, settings, _ = load_weights(model)
    frame = Frame.of(settings.input)
    images = torch.from_numpy(frame.read(photo))[None].permute(0, 3, 1, 2)
    with torch.inference_mode():
        levels = to_levels(network(images).float().sigmoid())
    return frame.full_size(levels.reshape(frame.height, frame.width).numpy(), photo.shape)


def edge_errors(scenes: Sequence[Scene], model: Path, seed: int) -> dict[str, dict[str, float]]:
    """Mean absolute errors of recomposed pictures near the edges, with predicted opacities, by width of the edge."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {}
    for scene in scenes:
        photo = taken(scene.front, scene.alpha, scene.back, rng)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "photo.png"
            Image.fromarray(photo).save(file)
            levels = predicted(model, photo_at(file))
        soft = (scene.alpha > 0.02) & (scene.alpha < 0.98)
        near = _around(soft, 9)
        alphas: dict[str, Floats] = {f"{edge:g} pixels": alpha_of(levels, 0.5, edge) for edge in EDGES}
        alphas["the probabilities"] = levels.astype(np.float32) / np.float32(255)
        for name, alpha in alphas.items():
            pictures = photo.astype(np.float32), foreground(photo, alpha).astype(np.float32)
            errors = [
                [_wrong(scene, each, alpha, near, np.array(new, np.float32)) for new in NEW.values()]
                for each in pictures
            ]
            found.setdefault(name, []).append((float(np.mean(errors[0])), float(np.mean(errors[1]))))
    return {
        name: dict(zip(("not cleaned", "cleaned"), np.mean(errors, axis=0).tolist(), strict=True))
        for name, errors in found.items()
    }


def _wrong(scene: Scene, colours: Floats, alpha: Floats, near: NDArray[np.bool_], new: Floats) -> float:
    """The error of a cut-out on a new background."""
    truth = composed(scene.front[near], scene.alpha[near], new)
    return float(np.abs(composed(colours[near], alpha[near], new) - truth).mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Print errors and CPU seconds."""
    arguments = parser("Errors of the colours at the edges of cut-outs, cleaned and not, and CPU seconds.")
    arguments.add_argument("--data", type=Path, help="data folder with masks; by default generated cars")
    arguments.add_argument("--run", help="a run whose network predicts the opacity; by default the studio weights")
    arguments.add_argument("--fold", type=int, default=0, help="its fold")
    arguments.add_argument("--cars", type=int, default=4, help="number of cars")
    arguments.add_argument("--seed", type=int, default=1, help="of the cars and backgrounds")
    arguments.add_argument("--repeats", type=int, default=3, help="repetitions of the measurement of time")
    options = arguments.parse_args(argv)
    data = DataFolder(options.data) if options.data else None
    if data:
        photos = first(data.train, options.cars)
        scenes = [labelled(photo.read(), data.truth(photo)) for photo in photos]
    else:
        scenes = [generated(options.seed + number, FRAME) for number in range(options.cars)]
    errors = colour_errors(scenes, options.seed)
    for figure in ("colours", "recomposed"):
        for name, rows in errors.items():
            print_rows(f"{figure}, before {name}", {way: each[figure] for way, each in rows.items()}, "levels of 255")
    photo = taken(*scenes[0], np.random.default_rng(options.seed))
    timed = {way: partial(estimate, photo, scenes[0].alpha) for way, estimate in ways().items()}
    seconds = medians(in_turns(timed, options.repeats, clock=time.process_time))
    print_rows(f"time for {photo.shape[1]} x {photo.shape[0]}", seconds, "s of CPU")
    opacity = opacity_errors(scenes)
    for figure in ("edges", "thin parts"):
        of_frames = {name: each[figure] for name, each in opacity.items()}
        print_rows(f"opacity of {figure}, perfect masks in the frame", of_frames, "", 4)
    model = run_at(options.run).best(options.fold) if options.run else studio_weights()
    edges = edge_errors(scenes, model, options.seed)
    for kind in ("not cleaned", "cleaned"):
        errors_of = {name: each[kind] for name, each in edges.items()}
        print_rows(f"recomposed with predicted opacities, {kind}", errors_of, "levels of 255")
    ratio = np.mean([rows["cleaned"]["recomposed"] / rows["not cleaned"]["recomposed"] for rows in errors.values()])
    report(
        "foreground",
        {"cars": len(scenes), "errors": errors, "seconds": seconds, "opacity": opacity, "edges": edges},
        [Target("error of the recomposed picture, cleaned against not", float(ratio), 0.5, at_most=True)],
    )


if __name__ == "__main__":
    run_command(main)
