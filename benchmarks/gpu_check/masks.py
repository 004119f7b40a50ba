"""Steps ``masks`` and ``augment``: what a GPU computes in place of the host must be what the host computes."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from benchmarks.gpu_check.step import Check, Figure, require
from benchmarks.material import first, settings_of
from competition.images import Pixels
from competition.settings.resolve import preset_names
from competition.settings.schema import Augment
from folds import device_augment
from folds.augment import augmentation
from folds.frame import Frame
from inference.engine import host_masks
from inference.engine.device_masks import BatchPrediction
from inference.engine.host_masks import Prediction
from inference.engine.stream import masks_of_batch

LEVEL = 128
SHAPES = [(1280, 1918), (1280, 1918), (640, 959)]  # of the photos
# A GPU rounds positions and colours differently in their last bit: few pixels differ, by hardly more than 1 level.
ROUNDING, LEVELS = 0.01, 2
HOST = 2.0  # mean difference from the workers, which round positions to 1/32 of a pixel; in levels
FEW = 4  # photos


def masks(check: Check) -> Iterator[Figure]:
    """Enlarging, averaging, thresholding and spans, for the frame of every preset and for all frames together."""
    size = {"height": 32, "width": 64} if check.rehearsal else {}
    frames = [Frame.of(settings_of(preset).input.model_copy(update=size)) for preset in preset_names()]
    cases = {preset: [frame] for preset, frame in zip(preset_names(), frames, strict=True)}
    shapes = [(30, 60), (30, 60), (20, 40)] if check.rehearsal else SHAPES
    for name, chosen in {**cases, "all presets together": frames}.items():
        levels = [smooth_levels(frame, len(shapes)) for frame in chosen]
        groups = [(frame, 1 + number / 3) for number, frame in enumerate(chosen)]
        batch = [
            BatchPrediction(torch.from_numpy(each).to(check.device), *group)
            for each, group in zip(levels, groups, strict=True)
        ]
        spans = 0
        for number, ours in enumerate(masks_of_batch(shapes, batch, LEVEL)):
            host = [Prediction(each[number], *group) for each, group in zip(levels, groups, strict=True)]
            theirs = host_masks.threshold_at(host_masks.full_size(host, shapes[number]), LEVEL)
            require(np.array_equal(ours.spans, theirs.spans), f"{name}: the spans differ from the host's")
            require(ours.expected_dice == theirs.expected_dice, f"{name}: the expected Dice differs from the host's")
            spans += len(theirs.spans)
        yield Figure(f"{name}: equal spans", spans)


def smooth_levels(frame: Frame, images: int) -> Pixels:
    """Random blobs with soft edges, (N, h, w) uint8."""
    small = np.random.default_rng(0).integers(0, 256, (images, frame.height // 8, frame.width // 8), dtype=np.uint8)
    size = frame.width, frame.height
    return np.stack([cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in small])


def augment(check: Check) -> Iterator[Figure]:
    """Random changes of a batch on the device, on the CPU by the same code, and in the workers by albumentations."""
    chosen = Augment(affine=1, colour=1, hue=0.1, grey=0.3, crop=[16, 32] if check.rehearsal else [768, 768])
    settings = check.settings(check.preset)
    frame, crop = Frame.of(settings.input), settings.model_copy(update={"augment": chosen}).sample_size
    photos = first(check.data.train, FEW)
    images = [frame.read(photo) for photo in photos]
    targets = [frame.target_of_spans(check.data.truth_spans(photo), photo.shape) for photo in photos]
    transform, changes, host = augmentation(chosen), [], []
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        transform.set_random_seed(number)
        changes.append(device_augment.draw(transform, (frame.height, frame.width)))
        transform.set_random_seed(number)
        host.append(transform(image=image, mask=target))
    batch = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))
    by_cpu = device_augment.apply(*batch, torch.stack(changes), crop)
    there = batch[0].to(check.device), batch[1].to(check.device)
    ours = device_augment.apply(*there, torch.stack(changes), crop)
    for name, mine, theirs in zip(("image", "mask"), ours, by_cpu, strict=True):
        apart = (mine.cpu().int() - theirs.int()).abs()
        workers = torch.from_numpy(np.stack([each[name] for each in host])).int()
        mean = float((mine.cpu().int() - workers).abs().float().mean())
        other = float((apart > 0).float().mean())
        yield Figure(f"{name}: pixels that differ from the CPU's", 100 * other, "%")
        yield Figure(f"{name}: mean difference from the workers'", mean, "levels")
        most = int(apart.max())
        require(
            most <= LEVELS and other <= ROUNDING,
            f"{name}: {other:.2%} of the pixels differ from the CPU's, by up to {most} levels",
        )
        require(mean <= HOST, f"{name}: differs by {mean:.1f} levels on average from the workers'")
