"""Spans found on the device are those that the host would find."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from competition import rle
from folds.frame import Frame
from inference.engine import host_masks
from inference.engine.device_masks import BatchPrediction, enlarge, full_size, spans_at
from inference.engine.host_masks import Prediction

SIDES = st.integers(1, 60)
SMALL = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_enlarging_equals_opencv_in_every_pixel(height: int, width: int, new_height: int, new_width: int, seed: int):
    levels = np.random.default_rng(seed).integers(0, 256, (2, height, width), dtype=np.uint8)
    ours = enlarge(torch.from_numpy(levels), (new_height, new_width)).numpy()
    for image, enlarged in zip(levels, ours, strict=True):
        theirs = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR_EXACT)
        assert np.array_equal(enlarged, theirs.reshape(enlarged.shape))


@pytest.mark.parametrize("size", [(512, 768), (1024, 1024), (256, 384)])
def test_enlarging_at_the_sizes_of_the_presets(size: tuple[int, int]) -> None:
    levels = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    ours = enlarge(torch.from_numpy(levels)[None], (1280, 1918))[0].numpy()
    assert np.array_equal(ours, Frame(*size, "resize").full_size(levels, (1280, 1918)))


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 3), SMALL, SMALL), elements=st.integers(0, 3)))
def test_runs_are_those_of_each_mask_by_itself(levels: np.ndarray) -> None:
    found = spans_at(torch.from_numpy(levels), 2)
    assert [spans.tolist() for spans in found] == [rle.from_mask(image >= 2).tolist() for image in levels]


def test_runs_do_not_go_on_into_the_next_image() -> None:
    levels = torch.full((3, 4, 5), 200, dtype=torch.uint8)
    levels[1] = 0
    assert [spans.tolist() for spans in spans_at(levels, 128)] == [[[0, 20]], [], [[0, 20]]]
    assert rle.to_text(spans_at(levels, 128)[0]) == "1 20"


@pytest.mark.parametrize("weights", [(2, 1, 5), (0.25, 1.0, 1 / 3)])
def test_predictions_of_several_frames_are_averaged_as_on_the_host(weights: tuple[float, ...]) -> None:
    random = np.random.default_rng(2)
    frames = [Frame(32, 64, "resize"), Frame(64, 96, "pad"), Frame(96, 96, "resize")]
    groups = list(zip(frames, weights, strict=True))
    levels = [random.integers(0, 256, (2, frame.height, frame.width), dtype=np.uint8) for frame, _ in groups]
    together = zip(levels, groups, strict=True)
    ours = full_size([BatchPrediction(torch.from_numpy(each), *group) for each, group in together], (50, 90)).numpy()
    for number in range(2):
        host = [Prediction(each[number], *group) for each, group in zip(levels, groups, strict=True)]
        assert np.array_equal(ours[number], host_masks.full_size(host, (50, 90)))
