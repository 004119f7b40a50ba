"""The random changes of ``folds.augment`` on the training device: drawn on the host, computed for a whole batch.

The numbers that a sample draws are the same, so its pixels are the same except for rounding: the warp is exact, where
OpenCV rounds positions to 1/32 of a pixel, and the colours are rounded once and not after each change.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from competition.rle import Shape

if TYPE_CHECKING:
    import albumentations

# A change: the six numbers of a matrix, the factors of the colours, the order in which they are applied, and grey.
MATRIX, FACTORS, ORDER, GREY = slice(0, 6), slice(6, 10), slice(10, 14), 14
NO_CHANGE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0)
ADJUST = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
UNCHANGED = (1.0, 1.0, 1.0, 0.0)


def draw(transform: "albumentations.Compose", shape: Shape) -> Tensor:
    """The change that a seeded transform would apply to a sample of this shape: (15,) float64.

    The matrix takes the position (x, y) of a pixel of the result to its position in the sample.
    """
    import albumentations  # see folds/augment.py

    change = np.array(NO_CHANGE)
    forward = np.eye(3)
    transform.py_random.random()  # albumentations draws a number for the composition itself
    for each in transform.transforms:
        if not each.should_apply():
            continue
        drawn = each.get_params()
        drawn |= each.get_params_dependent_on_data({**drawn, "shape": shape}, {})
        if isinstance(each, albumentations.HorizontalFlip):
            forward = np.array([[-1.0, 0, shape[1] - 1], [0, 1, 0], [0, 0, 1]]) @ forward
        elif isinstance(each, albumentations.Affine):
            forward = drawn["matrix"] @ forward
        elif isinstance(each, albumentations.RandomCrop):
            left, top = drawn["crop_coords"][:2]
            forward = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ forward
        elif isinstance(each, albumentations.ColorJitter):
            change[FACTORS] = [drawn[name] for name in ("brightness", "contrast", "saturation", "hue")]
            change[ORDER] = drawn["order"]
        elif isinstance(each, albumentations.ToGray):
            change[GREY] = 1
        else:
            raise TypeError(f"{type(each).__name__} is not computed on the device")
    change[MATRIX] = np.linalg.inv(forward)[:2].ravel()
    return torch.from_numpy(change)


@torch.no_grad()
def apply(images: Tensor, targets: Tensor, changes: Tensor, size: Shape) -> tuple[Tensor, Tensor]:
    """The changed samples, on the device of the images.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        targets: (N, H, W) uint8.
        changes: (N, 15) float64 of ``draw``, on the host.
        size: height and width of the results.

    Returns:
        (N, h, w, 3) and (N, h, w) uint8.
    """
    together = torch.cat([images, targets.unsqueeze(3)], dim=3).permute(0, 3, 1, 2).float()
    matrices = changes[:, MATRIX].to(images.device, torch.float32, non_blocking=True)
    grid = positions(matrices, (images.shape[1], images.shape[2]), size)
    warped = F.grid_sample(together, grid, mode="bilinear", padding_mode="border", align_corners=True)
    coloured = torch.stack(
        [recoloured(image / 255, change.tolist()) for image, change in zip(warped[:, :3], changes, strict=True)]
    )
    image = (255 * coloured).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return image, warped[:, 3].round().to(torch.uint8)


def positions(matrices: Tensor, shape: Shape, size: Shape) -> Tensor:
    """Where the pixels of the results are in the samples, as ``grid_sample`` counts: (N, h, w, 2), -1 to 1."""
    x = torch.arange(size[1], dtype=matrices.dtype, device=matrices.device)
    y = torch.arange(size[0], dtype=matrices.dtype, device=matrices.device).unsqueeze(1)
    to_x, to_y = matrices.view(-1, 2, 3, 1, 1).unbind(1)
    grid = [row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in (to_x, to_y)]
    return torch.stack([2 / (shape[1] - 1) * grid[0] - 1, 2 / (shape[0] - 1) * grid[1] - 1], dim=3)


def recoloured(image: Tensor, change: Sequence[float]) -> Tensor:
    """An image (3, h, w) in [0, 1] with changed colours."""
    from torchvision.transforms.v2 import functional as colours  # slow to import, and few trainings need it

    factors = change[FACTORS]
    for number in map(int, change[ORDER]):
        if factors[number] != UNCHANGED[number]:
            image = getattr(colours, ADJUST[number])(image, factors[number])
    grey: Tensor = colours.rgb_to_grayscale(image, num_output_channels=3) if change[GREY] else image
    return grey
