"""Paint and light: the colour of a painted surface, given its normal and what it reflects."""

from dataclasses import dataclass

import numpy as np

from competition.studio.camera import Floats

# Name, sRGB, metallic, weight; the weights are roughly those of cars in the USA.
_COLOURS: tuple[tuple[str, tuple[int, int, int], float, float], ...] = (
    ("white", (238, 239, 240), 0.0, 0.24),
    ("pearl", (228, 225, 214), 0.1, 0.04),
    ("black", (9, 9, 11), 0.0, 0.19),
    ("silver", (188, 191, 196), 0.8, 0.14),
    ("grey", (84, 87, 92), 0.7, 0.13),
    ("red", (178, 12, 22), 0.2, 0.08),
    ("maroon", (92, 10, 20), 0.3, 0.03),
    ("blue", (22, 62, 150), 0.4, 0.06),
    ("navy", (15, 24, 48), 0.3, 0.04),
    ("green", (18, 44, 32), 0.3, 0.02),
    ("champagne", (164, 150, 124), 0.7, 0.03),
)


@dataclass(frozen=True)
class Paint:
    """A paint: sRGB colour 0..255, and from 0 to 1 how metallic it is."""

    name: str
    colour: tuple[float, float, float]
    metallic: float

    @property
    def linear(self) -> Floats:
        """The colour as reflectances (3,) in linear light."""
        return linear(np.array(self.colour, np.float32))


def paint_of(rng: np.random.Generator) -> Paint:
    """A random paint; common colours are more likely."""
    weights = np.array([weight for *_, weight in _COLOURS])
    name, colour, metallic, _ = _COLOURS[int(rng.choice(len(_COLOURS), p=weights / weights.sum()))]
    tint = np.clip(np.array(colour) + rng.normal(0, 3, 3), 4, 244)
    return Paint(name, (float(tint[0]), float(tint[1]), float(tint[2])), metallic)


def linear(srgb: Floats) -> Floats:
    """SRGB 0..255 to linear light 0..1."""
    return np.asarray(np.power(srgb / 255, 2.2), np.float32)


def display(light: Floats) -> Floats:
    """Linear light to sRGB 0..255; highlights are compressed instead of clipped."""
    light = np.maximum(light, 0)
    rolled = np.where(light < 0.7, light, 0.7 + 0.35 * (1 - np.exp(-(light - 0.7) / 0.35)))
    return np.asarray(255 * np.power(np.minimum(rolled, 1), 1 / 2.2), np.float32)


def _step(value: Floats, low: float, high: float) -> Floats:
    ramp = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def surroundings(direction: Floats) -> Floats:
    """The light (...) that arrives from `direction` (..., 3): floor, white wall, ceiling and lamps."""
    up = direction[..., 2]
    # The white wall is in front of the camera; the room behind the camera is dark.
    wall = 0.16 + 0.80 * _step(direction[..., 1], -0.35, 0.45)
    ceiling = 0.30 + 0.15 * direction[..., 1]
    above = wall + _step(up, 0.30, 0.60) * (ceiling - wall)
    floor = 0.08 + 0.24 * _step(up, -0.75, -0.10)
    light = floor + _step(up, 0.0, 0.07) * (above - floor)
    # Lamps all around below the ceiling: they make the line of light along shoulders and roof edges.
    light = light + (1.6 - 0.8 * direction[..., 1]) * np.exp(-np.square((up - 0.50) / 0.06))
    # A large lamp on each side of the turntable and one above it.
    for across, high in ((-0.5, 0.80), (0.5, 0.80), (0.0, 0.97)):
        near = np.square((direction[..., 0] - across) / 0.15) + np.square((up - high) / 0.10)
        light = light + 6.0 * np.exp(-near)
    return np.asarray(light, np.float32)


def shade(points: Floats, normals: Floats, eye: Floats, paint: Paint) -> Floats:
    """The sRGB colours 0..255 (..., 3) of paint at `points` with `normals` (..., 3), seen from `eye`."""
    view = points - eye
    view = view / np.linalg.norm(view, axis=-1, keepdims=True)
    facing = -np.sum(view * normals, axis=-1)
    mirrored = view + 2 * np.maximum(facing, 0)[..., None] * normals
    fresnel = 0.026 + 0.974 * (1 - np.clip(facing, 0, 1)) ** 5
    up = normals[..., 2]
    # White room above, grey floor below; less light close to the floor.
    ambient = 0.42 + 0.58 * _step(up, -0.9, 0.9)
    ambient = ambient * (0.55 + 0.45 * _step(points[..., 2] + 0.25 * up, 0.1, 0.75))
    away = np.maximum(-(normals[..., 1]), 0)
    diffuse = ambient + 0.10 * away
    flake = paint.metallic * (0.55 * np.clip(facing, 0, 1) ** 2 - 0.28)
    mirror = surroundings(mirrored)
    gloss = 0.25 * paint.metallic * (mirror - 0.45)
    body = paint.linear * (diffuse + flake + gloss)[..., None] * 0.98
    return display(body + (np.minimum(fresnel, 0.6) * mirror)[..., None])
