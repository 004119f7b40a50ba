"""Pictures of a prediction: a cut-out with soft edges, the object on a colour, a mask, the levels, an overlay."""

from contextlib import suppress
from functools import cached_property

import cv2
import numpy as np
from PIL import ImageColor

from competition.command import Failure
from competition.images import Pixels
from competition.overlay import draw_mask
from inference.cutouts.foreground import Floats, foreground, scale_of
from inference.engine.host_masks import level_of

KINDS = ("rgba", "mask", "soft", "overlay")
# Width of a soft edge in pixels of a photo of Carvana's size or less; the blur of lenses is about as wide.
EDGE = 3.0
STEEP = 4.0  # levels that rise from 0 to 255 over so many pixels are not smoothed; pixels as for EDGE
FLATTEST = np.float32(0.5)  # levels per pixel: a smaller slope, which rounding may cause, counts as this one
OUTLINE = 640  # the outline of an overlay has one pixel for each so many pixels of the photo's longer side


def require_kind(kind: str) -> None:
    """Raise a Failure unless this is the name of a kind of picture, or a colour."""
    if kind not in KINDS:
        _colour(kind)


class Renderer:
    """Draws the pictures of a photo. What several kinds need, opacity and clean colours, is computed once.

    Args:
        photo: (H, W, 3) uint8 RGB.
        levels: (H, W) uint8, the predicted levels at full size.
        threshold: pixels of the mask are at or above this probability.
    """

    def __init__(self, photo: Pixels, levels: Pixels, threshold: float) -> None:
        self.photo = photo
        self.levels = levels
        self.threshold = threshold

    @cached_property
    def alpha(self) -> Floats:
        """The opacity, (H, W) float32 in [0, 1]."""
        return alpha_of(self.levels, self.threshold)

    @cached_property
    def colours(self) -> Pixels:
        """The colours without those of the background, (H, W, 3) uint8."""
        return foreground(self.photo, self.alpha)

    def render(self, kind: str) -> Pixels:
        """Draw a picture.

        Args:
            kind: ``rgba``: the object with soft edges; ``mask``: 0 and 255; ``soft``: the levels; ``overlay``: the
                mask drawn over the photo; or a colour, such as ``white`` or ``#ff8800``: the object on it.

        Returns:
            (H, W, 4) uint8 RGBA for ``rgba``, (H, W) uint8 for ``mask`` and ``soft``, else (H, W, 3) uint8 RGB.
        """
        if kind == "soft":
            return self.levels
        if kind in ("mask", "overlay"):
            mask = (self.levels >= level_of(self.threshold)).astype(np.uint8)
            return mask * np.uint8(255) if kind == "mask" else _overlay(self.photo, mask)
        if kind == "rgba":
            return np.dstack([self.colours, np.rint(self.alpha * 255).astype(np.uint8)])
        return _placed(self.colours, self.alpha, _colour(kind))


def render(photo: Pixels, levels: Pixels, threshold: float, kind: str) -> Pixels:
    """Draw one picture of a photo, as a ``Renderer`` does."""
    return Renderer(photo, levels, threshold).render(kind)


def alpha_of(levels: Pixels, threshold: float, edge: float = EDGE) -> Floats:
    """The opacity of each pixel: a ramp of fixed width across the outline of the mask.

    The levels of a network rise over a few pixels of its frame, which may be many pixels of the photo. The distance
    of a pixel from the outline is about (level - threshold) / slope of the levels, so the ramp has the same width for
    networks of every frame.

    Args:
        levels: (H, W) uint8, the predicted levels at full size.
        threshold: pixels of the mask are at or above this probability.
        edge: the width of the ramp in pixels of a photo of Carvana's size or less.

    Returns:
        (H, W) float32 in [0, 1], multiples of 1/255: 0.5 on the outline, which is smoothed where it has steps.
    """
    level = level_of(threshold)
    smooth = _without_steps(levels, level)
    alpha: Floats = smooth.astype(np.float32)
    alpha -= np.float32(level - 0.5)
    width = edge * _scale(levels)
    alpha /= _steepest(_slope(smooth), width, _scale(levels)) * np.float32(width)
    alpha += np.float32(0.5)
    alpha *= np.float32(255)
    np.rint(np.clip(alpha, 0, 255, out=alpha), out=alpha)
    alpha /= np.float32(255)
    return alpha


def crop_box(levels: Pixels, threshold: float, margin: float) -> tuple[slice, slice]:
    """The rows and columns of the mask with a margin, to crop a picture of it.

    Args:
        levels: (H, W) uint8, the predicted levels at full size.
        threshold: pixels of the mask are at or above this probability.
        margin: a fraction of the mask's longer side. The margin is at least as wide as the soft edges.

    Returns:
        Slices within the photo; the whole photo if the mask is empty.
    """
    left, top, width, height = cv2.boundingRect((levels >= level_of(threshold)).astype(np.uint8))
    if width == 0:
        return slice(0, levels.shape[0]), slice(0, levels.shape[1])
    added = int(np.ceil(max(EDGE * _scale(levels), margin * max(width, height))))
    return (
        slice(max(0, top - added), min(levels.shape[0], top + height + added)),
        slice(max(0, left - added), min(levels.shape[1], left + width + added)),
    )


def _without_steps(levels: Pixels, level: int) -> Pixels:
    """Levels whose outline has no steps of the size of the network's pixels.

    The number of pixels over which the levels rise tells how much they were enlarged. Levels as steep as a photo's
    own edges are returned as they are.
    """
    mask = (levels >= level).astype(np.uint8)
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0  # both sides of it
    if not outline.any():
        return levels
    rise = 255 / max(float(np.median(_slope(levels)[outline])), 1.0)
    sigma = (rise - STEEP * _scale(levels)) / 4
    return np.asarray(cv2.GaussianBlur(levels, (0, 0), sigma)) if sigma > 0.3 else levels


def _steepest(slope: Floats, edge: float, scale: float) -> Floats:
    """The largest slope beside each pixel, at least FLATTEST.

    On the ridge of a thin part, such as an antenna, the levels do not rise, and it would be opaque or lost. Slopes
    above 255 / edge count at their own pixel only: beside a steep outline the levels are 0 and 255 already.
    """
    around = 2 * round(scale) + 1
    beside = np.minimum(cv2.dilate(slope, np.ones((around, around), np.uint8)), np.float32(255 / edge))
    steepest: Floats = np.maximum(np.maximum(slope, beside), FLATTEST)
    return steepest


def _slope(levels: Pixels) -> Floats:
    """Levels per pixel, (H, W) float32, in the direction in which they rise most."""
    rise_x, rise_y = cv2.spatialGradient(levels)  # Sobel filters, which multiply the slope by 8
    slope: Floats = np.hypot(rise_x, rise_y, dtype=np.float32)
    slope /= 8
    return slope


def _scale(levels: Pixels) -> float:
    return scale_of((levels.shape[0], levels.shape[1]))


def _colour(name: str) -> tuple[int, int, int]:
    """The RGB values of a colour's name."""
    with suppress(ValueError):
        values = ImageColor.getrgb(name)
        if len(values) == 3:  # not a transparent one
            return values
    kinds = f"{', '.join(KINDS)}, or a colour such as white or #ff8800"
    raise Failure(f"TYPE={name} is not a kind of picture: {kinds}")


def _overlay(photo: Pixels, mask: Pixels) -> Pixels:
    picture = photo.copy()
    draw_mask(picture, mask, line=max(1, round(max(mask.shape) / OUTLINE)))
    return picture


def _placed(colours: Pixels, alpha: Floats, colour: tuple[int, int, int]) -> Pixels:
    """The object on a background of one colour, (H, W, 3) uint8."""
    placed = np.where((alpha == 1)[..., None], colours, np.array(colour, np.uint8))
    soft = (alpha > 0) & (alpha < 1)
    part = alpha[soft][:, None]
    placed[soft] = np.rint(part * colours[soft] + (1 - part) * np.array(colour, np.float32)).astype(np.uint8)
    return placed
