"""Read one mask file: every pixel gets label 1 if it has the higher of the file's two values, else 0.

Any two values are labels: 0 and 1, 0 and 255, 0 and 20, 7 and 9, two colors, transparent and opaque. The brighter
color is the higher value. Values between the two are accepted if they are the smooth edge of a mask. What a file of a
single value means is decided with the other files of the data set, in ``competition.mask_values``.
"""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.command import Failure
from competition.images import Pixels
from competition.lossless import Decoded, decode
from competition.mask_edges import Plateaus, has_smooth_edges, plateaus

MASK_TYPES = (".gif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
ADVICE = "write masks of two values, such as 0 and 255 for car"
FEW = 32  # a picture with more levels is hardly a mask of several classes
SHOWN = 6  # values in a message
OFF_RAMP = 0.15  # of the distance of two colors: a pixel farther away from the line between them has another color

Levels = NDArray[Any]


class Values(NamedTuple):
    """The values of a mask file as text, such as ``0`` and ``255``, or ``#000000`` and ``#ff0000``.

    Attributes:
        background: the lower value, or the only one.
        car: the higher value; None if the file has only one.
        alpha: whether they are values of the alpha channel.
        smooth: whether pixels at the outline have values between the two.
    """

    background: str
    car: str | None
    alpha: bool = False
    smooth: bool = False

    def __str__(self) -> str:
        """Text such as ``0/255``."""
        shown = f"only {self.background}" if self.car is None else f"{self.background}/{self.car}"
        return f"{'alpha ' if self.alpha else ''}{shown}{' with smooth edges' if self.smooth else ''}"


class MaskFile(NamedTuple):
    """A mask file.

    Attributes:
        path: its path.
        labels: (H, W) uint8, 1 at the higher value, else 0; all 0 if the file has only one value.
        values: the two values, or the only one.
    """

    path: Path
    labels: Pixels
    values: Values


class NoMask(Exception):
    """An image that is not a mask of car or not. The message continues a sentence that begins with the file."""


def read_mask(path: Path) -> MaskFile:
    """Read a mask file of one of ``MASK_TYPES``, as it is stored: its EXIF orientation is not applied."""
    decoded = decode(path)
    try:
        labels, values = _labels(decoded)
    except NoMask as problem:
        raise Failure(f"{path} {problem}; {ADVICE}") from problem
    return MaskFile(path, labels, values)


def _labels(decoded: Decoded) -> tuple[Pixels, Values]:
    alpha = decoded.alpha
    if alpha is None or alpha.min() == alpha.max():
        return _labels_of_colors(decoded)
    return _labels_of_alpha(decoded, alpha)


def _labels_of_alpha(decoded: Decoded, alpha: Levels) -> tuple[Pixels, Values]:
    """The label is the alpha channel; in a cut-out, the colors are the photo. Two different masks are refused."""
    try:
        labels, values = _labels_of_levels(alpha, decoded.lossy)
    except NoMask as problem:
        raise NoMask(f"has an alpha channel that {problem}") from problem
    try:
        colored, values_of_colors = _labels_of_colors(decoded)
    except NoMask:
        return labels, values._replace(alpha=True)
    if values_of_colors.car is not None and not _agree(labels, colored):
        raise NoMask(f"has an alpha channel ({values}) and colors ({values_of_colors}) that are different masks")
    return labels, values._replace(alpha=True)


def _agree(labels: Pixels, others: Pixels) -> bool:
    """Whether two masks differ at most at a smooth outline: nowhere in a whole 5 x 5 square."""
    differ = (labels != others).astype(np.uint8)
    return not cv2.erode(differ, np.ones((5, 5), np.uint8), borderValue=0).any()


def _labels_of_colors(decoded: Decoded) -> tuple[Pixels, Values]:
    if decoded.palette is not None:
        return _labels_of_palette(decoded.pixels, decoded.palette)
    if decoded.pixels.ndim == 2:
        return _labels_of_levels(decoded.pixels, decoded.lossy)
    return _labels_of_rgb(decoded.pixels, decoded.lossy)


def _labels_of_palette(indices: Pixels, palette: Pixels) -> tuple[Pixels, Values]:
    """The brighter color of two is car; colors that are equal or equally bright are told apart by index."""
    if (palette == palette[0]).all():
        return _labels_of_levels(indices)
    low, high = int(indices.min()), int(indices.max())
    names = [_name(palette[index]) for index in (low, high)]
    if low == high:
        return np.zeros(indices.shape, np.uint8), Values(names[0], None)
    if high == low + 1 or ((indices == low) | (indices == high)).all():
        names = names if names[0] != names[1] else [str(low), str(high)]
        brightness = palette.max(axis=1)
        if brightness[low] > brightness[high]:
            return (indices == low).view(np.uint8), Values(names[1], names[0])
        return (indices == high).view(np.uint8), Values(names[0], names[1])
    used = np.unique(indices)
    colors = palette[used]
    if len(np.unique(colors, axis=0)) < len(used):  # the colors do not show all values
        raise _several([str(index) for index in used], len(used))
    gray = (colors == colors[:, :1]).all()
    return _labels_of_levels(palette[:, 0][indices]) if gray else _labels_of_rgb(palette[indices])


def _labels_of_rgb(colors: Levels, lossy: bool = False) -> tuple[Pixels, Values]:
    """The brightness is that of the brightest channel."""
    red, green, blue = np.moveaxis(colors, 2, 0)
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return _labels_of_levels(red, lossy)
    numbers = _numbers(colors)
    is_first = numbers == numbers[0, 0]
    first, second = colors[0, 0], colors[np.unravel_index(int(is_first.argmin()), is_first.shape)]
    if is_first.all():
        return np.zeros(is_first.shape, np.uint8), Values(_name(first), None)
    if (is_first | (numbers == _numbers(second))).all():
        if first.max() == second.max():
            raise NoMask(f"has two colors of the same brightness, {_name(first)} and {_name(second)}")
        if first.max() > second.max():
            return is_first.view(np.uint8), Values(_name(second), _name(first))
        return (~is_first).view(np.uint8), Values(_name(first), _name(second))
    brightness = np.maximum(np.maximum(red, green), blue)
    found = plateaus(brightness)
    if found.low < found.high and has_smooth_edges(brightness, found, lossy=lossy):
        low, high = (np.median(colors[brightness == level], axis=0) for level in found)
        if has_smooth_edges(brightness, found, lossy=lossy, other=_off_ramp(colors, low, high)):
            background, car = _name(low.astype(colors.dtype)), _name(high.astype(colors.dtype))
            return _at_middle(brightness, found), Values(background, car, smooth=True)
    examples = np.unique(numbers, return_index=True)[1]
    raise _several([_name(color) for color in colors.reshape(-1, 3)[examples[:FEW]]], len(examples), "colors")


def _numbers(colors: Levels) -> Levels:
    """A whole number for each color."""
    wide = colors.astype(np.uint64)
    bits = np.uint64(8 * colors.dtype.itemsize)
    numbers: Levels = (wide[..., 0] << 2 * bits) | (wide[..., 1] << bits) | wide[..., 2]
    return numbers


def _off_ramp(colors: Levels, low: Levels, high: Levels) -> NDArray[np.bool_]:
    """Whether the color of each pixel is far from all colors between two."""
    line = (high - low).astype(np.float32)
    from_low = colors.astype(np.float32) - low.astype(np.float32)
    along = np.clip(from_low @ line / (line @ line), 0, 1)
    away = from_low - along[..., None] * line
    far: NDArray[np.bool_] = np.sqrt((away**2).sum(axis=2)) > OFF_RAMP * np.sqrt(line @ line)
    return far


def _labels_of_levels(levels: Levels, lossy: bool = False) -> tuple[Pixels, Values]:
    low, high = levels.min(), levels.max()
    if low == high:
        return np.zeros(levels.shape, np.uint8), Values(f"{low:g}", None)
    is_high = levels == high
    if (is_high | (levels == low)).all():
        return is_high.astype(np.uint8), Values(f"{low:g}", f"{high:g}")
    scaled = levels
    if levels.dtype not in (np.uint8, np.uint16):
        scaled = np.rint((levels.astype(np.float64) - low) * (65535 / (float(high) - float(low)))).astype(np.uint16)
    found = plateaus(scaled)
    if not has_smooth_edges(scaled, found, lossy=lossy):
        different = np.unique(levels)
        raise _several([f"{level:g}" for level in different[:FEW]], len(different))
    if scaled is levels:
        low, high = found
    return _at_middle(scaled, found), Values(f"{low:g}", f"{high:g}", smooth=True)


def _at_middle(levels: Levels, found: Plateaus) -> Pixels:
    """1 at or above the middle of two plateaus: at 128 for 0 and 255."""
    return (levels >= (found.low + found.high + 1) // 2).view(np.uint8)


def _name(color: Levels) -> str:
    """A level of gray as a number, another color as ``#ff0000``."""
    if (color == color[0]).all():
        return str(color[0])
    return "#" + "".join(f"{channel:0{2 * color.dtype.itemsize}x}" for channel in color.tolist())


def _several(names: list[str], count: int, what: str = "values") -> NoMask:
    """The error for values that are not a smooth edge; it names the first few."""
    if count > FEW:
        return NoMask(
            f"has {count} {what} that are not the smooth edge of a mask, like a photo or a map of probabilities"
        )
    shown = ", ".join(names[:SHOWN]) + (", ..." if count > SHOWN else "")
    return NoMask(f"looks like a mask of several classes ({what} {shown}); this project segments car or not")
