"""A mask drawn over its photo: a tint inside, and an outline that is visible on dark and on bright photos."""

import cv2
import numpy as np

from competition.images import Pixels

# Neither cars nor studios, streets or skies are often of this color. The rim makes it visible on similar ones.
OUTLINE, RIM, TINT = (255, 0, 170), (0, 0, 0), 0.18


def draw_mask(picture: Pixels, mask: Pixels, line: int) -> None:
    """Draw a mask into a picture.

    Args:
        picture: (H, W, 3) uint8 RGB, which is changed.
        mask: (H, W) uint8 of 0 and 1.
        line: width of the outline in pixels; its rim makes it twice as wide.
    """
    tint = np.array(OUTLINE, dtype=np.float32) * TINT
    tinted = np.clip(np.arange(256, dtype=np.float32)[:, None] * (1 - TINT) + tint, 0, 255).astype(np.uint8)
    cv2.copyTo(cv2.LUT(picture, tinted[:, None]), mask, picture)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for color, thickness in ((RIM, 2 * line), (OUTLINE, line)):
        cv2.drawContours(picture, outlines, -1, color, thickness, cv2.LINE_AA)
