"""Photos to learn from: each shows another car in another place, beyond the studio's cars and room.

A network that learns from them must not rely on anything that is the same in all photos of the studio. So everything
is drawn anew for each photo: lens, place, dimensions, paint, trim, light, noise and compression.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from competition.studio import backdrop
from competition.studio.backdrop import chance, colour, noise
from competition.studio.body import KINDS, Shape, facets_of, shape_of
from competition.studio.camera import FOCAL, Camera, camera_of_shoot
from competition.studio.car import Car, build_shape
from competition.studio.paint import Paint
from competition.studio.parts import SIDES, Line, Pane, Patch
from competition.studio.render import develop, layers
from competition.studio.room import Picture, Room, empty

_DARK = (10.0, 60.0)  # greys of plastic trim


@dataclass(frozen=True)
class Scene:
    """A car before a camera; `view` need not be a whole number."""

    camera: Camera
    room: Room
    car: Car
    view: float


def photo_of(seed: Sequence[int], width: int, height: int, border: float = 0.0) -> tuple[Picture, Picture]:
    """The photo that a seed stands for, (H, W, 3) uint8 RGB, and its mask, (H, W) uint8 of 0 and 1.

    Args:
        seed: any whole numbers.
        width: of the photo in pixels; height likewise.
        border: the probability that another floor shows at the bottom.
    """
    rng = np.random.default_rng(list(seed))
    return photo_of_scene(scene_of(rng, width, height, border), rng)


def scene_of(rng: np.random.Generator, width: int, height: int, border: float = 0.0) -> Scene:
    """A random scene for a photo of this size."""
    camera = _camera(rng, width, height)
    return Scene(
        camera=camera,
        room=backdrop.room(rng, camera, border),
        car=_car(rng, camera),
        view=float(rng.integers(1, 17) + rng.normal(0, 0.15)),
    )


def photo_of_scene(scene: Scene, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """The photo and the mask of a scene, as `photo_of`; `rng` gives light, dirt and noise."""
    camera, room, view = scene.camera, scene.room, scene.view
    photo, layer = layers(scene.car, room, camera, view)
    darkness = rng.uniform(0.4, 1.5)  # of the shadow
    photo = cv2.addWeighted(photo, darkness, empty(room, camera, view), 1 - darkness, 0)
    opaque = layer[..., 3]
    cv2.copyTo(_weathered(rng, layer), opaque, photo)
    return _exposed(rng, develop(photo, room, camera, rng)), opaque >> np.uint8(7)


def _camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Mostly near the studio's camera; else nearer or farther, higher or lower, with another lens."""
    camera = camera_of_shoot(rng, width, height)
    if chance(rng, 0.5):
        return replace(camera, shift=float(rng.uniform(-90, 90)), focal=float(FOCAL * rng.uniform(0.9, 1.1)))
    distance = float(rng.uniform(5.0, 12.0))
    eye = float(rng.uniform(0.9, 2.6))
    return replace(
        camera,
        eye_height=eye,
        distance=distance,
        pitch=float(np.arctan2(eye - rng.uniform(0.3, 1.1), distance)),
        shift=float(rng.normal(0, 120)),
        focal=float(FOCAL * distance / 7.4 * rng.uniform(0.65, 1.3)),
    )


def _car(rng: np.random.Generator, camera: Camera) -> Car:
    car = build_shape(_shape(rng), rng, detail=min(1.0, 1.3 * camera.scale))
    rim = replace(car.rim, spokes=int(rng.integers(4, 21)), slim=float(rng.uniform(0.5, 1.5)))
    if chance(rng, 0.3):
        rim = replace(rim, tone=float(rng.uniform(25, 240)))
    parts = replace(
        car.parts,
        hull=[*car.parts.hull, *_trim(rng, car)],
        panes=_panes(rng, car.parts.panes),
        rails=[*car.parts.rails, *_side_steps(rng, car)],
    )
    paint = car.paint if chance(rng, 0.6) else Paint("any", colour(rng), float(rng.uniform(0, 0.8)))
    roof = Paint("roof", _grey(rng, 5, 60), 0.0) if chance(rng, 0.15) else None
    return replace(car, rim=rim, parts=parts, paint=paint, roof=roof)


def _shape(rng: np.random.Generator) -> Shape:
    """Dimensions between those of two kinds of car, stretched a little; a pick-up's load bed fits no other kind."""
    first, second = (shape_of(str(kind), rng) for kind in rng.choice(KINDS, 2))
    if "pickup" in (first.kind, second.kind):
        second = first
    share = float(rng.uniform(0, 0.5))
    mixed = {
        field.name: (1 - share) * getattr(first, field.name) + share * getattr(second, field.name)
        for field in fields(Shape)
        if field.name != "kind"
    }
    longer, wider, taller = rng.uniform(0.9, 1.1), rng.uniform(0.94, 1.08), rng.uniform(0.9, 1.08)
    for name in ("length", "wheelbase", "overhang"):
        mixed[name] *= longer
    for name in ("height", "nose", "bonnet", "belt", "deck", "tail"):
        mixed[name] *= taller
    mixed["width"] *= wider
    mixed["wheel"] *= rng.uniform(0.95, 1.1)
    mixed["rake"] = min(1.0, max(0.1, mixed["rake"] + rng.uniform(-0.3, 0.3)))
    return Shape(kind=first.kind, **{name: float(value) for name, value in mixed.items()})


def _trim(rng: np.random.Generator, car: Car) -> list[Patch | Line]:
    """Plastic around the body and the wheels, mouldings, handles and stickers."""
    hull = car.hull

    def band(psi: tuple[float, float], t: tuple[float, float], tone: tuple[float, float, float]) -> Patch:
        around = np.linspace(*psi, 60, dtype=np.float32)[None]
        return Patch(facets_of(hull.at(around, np.linspace(*t, 4, dtype=np.float32)[:, None])), tone)

    found: list[Patch | Line] = []
    plastic = _grey(rng, *_DARK)
    if chance(rng, 0.35):
        found.append(band((0, 2 * np.pi), (0, rng.uniform(0.08, 0.4)), plastic))
    for middle in (0.0, np.pi):  # bumpers
        if chance(rng, 0.2):
            low = rng.uniform(0, 0.3)
            reach = rng.uniform(0.3, 0.75)
            found.append(band((middle - reach, middle + reach), (low, low + rng.uniform(0.1, 0.3)), plastic))
    if chance(rng, 0.3):
        found += [_arch(car, axle, side, plastic) for axle in (hull.front_axle, hull.back_axle) for side in SIDES]
    for _ in range(int(rng.integers(0, 5))):  # mouldings and stickers, alike on both sides
        low, start = rng.uniform(0.1, 0.9), rng.uniform(0.5, 2.4)
        high, end = low + rng.choice([0.02, 0.05, 0.2]), start + rng.choice([0.03, 0.15, 0.8])
        tone = colour(rng) if chance(rng, 0.5) else _grey(rng, 0, 255)
        found += [band((start, end), (low, high), tone), band((-end, -start), (low, high), tone)]
    return found


def _arch(car: Car, axle: float, side: int, tone: tuple[float, float, float]) -> Patch:
    """The plastic ring around a wheel arch; the hole itself is cut out later."""
    angle = np.linspace(-0.3, np.pi + 0.3, 24, dtype=np.float32)
    radii = np.array([1.05, 1.3], np.float32)[::side, None] * car.shape.wheel
    x, z = axle + radii * np.cos(angle), car.shape.wheel + radii * np.sin(angle)
    return Patch(facets_of(car.hull.side(x, z, side)), tone)


def _side_steps(rng: np.random.Generator, car: Car) -> list[Line]:
    if not chance(rng, 0.15):
        return []
    x = np.linspace(car.hull.back_axle + 0.5, car.hull.front_axle - 0.5, 8, dtype=np.float32)
    height, width, tone = car.shape.clearance + rng.uniform(-0.05, 0.1), rng.uniform(0.04, 0.09), _grey(rng, 10, 190)
    away = car.shape.width / 2 * 0.99
    return [Line(np.stack([x, 0 * x + side * away, 0 * x + height], axis=1), tone, width) for side in SIDES]


def _panes(rng: np.random.Generator, panes: list[Pane]) -> list[Pane]:
    """Other tints, alike on both sides."""
    if chance(rng, 0.4):
        return panes
    tints = {pane.tint: float(rng.uniform(0.05, 1.0)) for pane in panes}
    return [replace(pane, tint=tints[pane.tint]) for pane in panes]


def _weathered(rng: np.random.Generator, layer: Picture) -> Picture:
    """The colours (H, W, 3) uint8 of the car's layer with reflections, dirt and shapes that no model has."""
    picture = np.ascontiguousarray(layer[..., :3])
    x, y, width, height = cv2.boundingRect(layer[..., 3])
    if not width:
        return picture
    area = picture[y : y + height, x : x + width].astype(np.float32)
    field = noise(rng, (height, width), (int(rng.integers(2, 8)), int(rng.integers(3, 12))))
    if chance(rng, 0.5):  # with sharp edges, as reflections have them
        field = np.tanh(5 * field)
    area *= 1 + np.float32(rng.normal(0, 0.08)) * field[..., None]
    area += np.float32(abs(rng.normal(0, 15))) * np.maximum(field, 0)[..., None]
    fine = noise(rng, (height, width), (width // int(rng.integers(4, 16)), height // int(rng.integers(4, 16))))
    area += np.float32(abs(rng.normal(0, 3))) * fine[..., None]
    worn = np.clip(area, 0, 255).astype(np.uint8)
    if chance(rng, 0.4):
        drawn = backdrop.scribbled(rng, worn, int(rng.integers(1, 12)), 0.3)
        share = rng.uniform(0.2, 1.0)
        worn = np.asarray(cv2.addWeighted(worn, 1 - share, drawn, share, 0), np.uint8)
    picture[y : y + height, x : x + width] = worn
    return picture


def _exposed(rng: np.random.Generator, photo: Picture) -> Picture:
    """Another exposure, contrast, white balance, sharpness and noise, and the artefacts of JPEG."""
    if chance(rng, 0.3):
        return photo
    level = np.linspace(0, 1, 256)[:, None]
    curve = rng.normal(1, 0.1) * level ** np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.03, 3))
    table = (255 * np.clip(curve + max(0.0, rng.normal(0, 0.01)), 0, 1)).astype(np.uint8)
    photo = np.asarray(cv2.LUT(photo, table[:, None]), np.uint8)
    if chance(rng, 0.3):
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.4, 1.8)), np.uint8)
    if chance(rng, 0.3):
        grain = rng.uniform(1, 10) * rng.standard_normal(photo.shape, np.float32)
        photo = np.clip(photo + grain, 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 97))])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)


def _grey(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    return (float(rng.uniform(low, high)),) * 3
