"""Random changes of training samples: geometry for photo and mask, colours for the photo only."""

from typing import TYPE_CHECKING

import cv2

from competition.settings.schema import Augment

if TYPE_CHECKING:  # slow to import: a command with nothing to train ends at once
    import albumentations


def augmentation(settings: Augment) -> "albumentations.Compose":
    """All random changes of a uint8 sample; the mask is interpolated like the photo and stays soft.

    The crop comes after the affine transform, whose border it would otherwise contain, and before the colours, which
    are then computed for fewer pixels.
    """
    import albumentations

    return albumentations.Compose([*_geometry(settings), *_colours(settings)])


def _geometry(settings: Augment) -> "list[albumentations.BasicTransform]":
    import albumentations

    transforms: list[albumentations.BasicTransform] = [
        albumentations.HorizontalFlip(p=settings.flip),
        albumentations.Affine(
            scale=_around_one(settings.scale),
            translate_percent=(-settings.shift, settings.shift),
            rotate=(-settings.rotate, settings.rotate),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_REPLICATE,
            p=settings.affine,
        ),
    ]
    if settings.crop:
        transforms.append(albumentations.RandomCrop(*settings.crop))
    return transforms


def _colours(settings: Augment) -> "list[albumentations.BasicTransform]":
    import albumentations

    # A transform with probability 0 still draws random numbers. The newer ones are left out at 0, so that adding them
    # did not change the samples of existing settings.
    transforms: list[albumentations.BasicTransform] = [
        albumentations.ColorJitter(
            brightness=_around_one(settings.brightness),
            contrast=_around_one(settings.contrast),
            saturation=_around_one(settings.saturation),
            hue=(-settings.hue, settings.hue),
            p=settings.colour,
        ),
        albumentations.ToGray(p=settings.grey),
    ]
    if settings.blur:
        transforms.append(albumentations.GaussianBlur(blur_limit=(3, 5), p=settings.blur))
    if settings.jpeg:
        transforms.append(albumentations.ImageCompression(quality_range=(50, 95), p=settings.jpeg))
    return transforms


def _around_one(change: float) -> tuple[float, float]:
    return 1 - change, 1 + change
