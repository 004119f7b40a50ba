"""Copies that overlap with the networks: nothing to do on a CPU, no mixed-up batches on a GPU."""

import pytest
import torch

from inference.engine.overlap import Overlap


def test_on_a_cpu_nothing_is_copied() -> None:
    overlap = Overlap(torch.device("cpu"))
    images = overlap.staging(2, 4, 4, 3)
    assert (images.shape, images.dtype, images.is_pinned()) == ((2, 4, 4, 3), torch.uint8, False)
    assert overlap.upload(images) is images
    with overlap.fetching(overlap.mark()):
        assert images.sum() >= 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_each_result_is_that_of_its_own_batch() -> None:
    overlap = Overlap(torch.device("cuda"))
    fetched = []
    predicted: list[tuple[torch.Tensor, torch.cuda.Event | None]] = []
    for number in range(20):
        images = overlap.staging(8, 256, 256, 3)
        images.fill_(number)
        result = overlap.upload(images).float().square().sum(dim=(1, 2, 3))
        predicted.append((result, overlap.mark()))
        if number:
            done, mark = predicted[number - 1]
            with overlap.fetching(mark):
                fetched.append(done.cpu())
    for number, values in enumerate(fetched):
        assert values.tolist() == [number**2 * 256 * 256 * 3.0] * 8
