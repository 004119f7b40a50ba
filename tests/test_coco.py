"""COCO annotations: the same masks, by a decoder written from the format's definition, and by pycocotools."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from competition import rle
from submissions import coco

Mask = NDArray[np.uint8]
masks = st.one_of(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 1)),
    # Long counts of both signs: few spans in a large picture.
    arrays(np.uint8, (150, 400), elements=st.integers(0, 1), fill=st.just(0)),
    arrays(np.uint8, (150, 400), elements=st.integers(0, 1), fill=st.just(1)),
)
# pycocotools 2.0.11: a rectangle with a hole.
KNOWN = {
    "size": [40, 60],
    "counts": "c<n0:000000000000000000[OH:8FH:8;000000000000000000000000000000000000000000000000000000]<",
}


def numbers(text: str) -> list[int]:
    """The counts of a compressed code."""
    found: list[int] = []
    characters: Iterator[str] = iter(text)
    for character in characters:
        code, value, bits = ord(character) - 48, 0, 0
        while True:
            value |= (code & 31) << bits
            bits += 5
            if not code & 32:
                break
            code = ord(next(characters)) - 48
        value -= (1 << bits) if code & 16 else 0
        found.append(value + (found[-2] if len(found) > 2 else 0))
    return found


def decoded(segmentation: dict[str, Any]) -> Mask:
    """The (H, W) mask of a segmentation."""
    height, width = segmentation["size"]
    counts = numbers(segmentation["counts"])
    pixels = np.repeat(np.arange(len(counts)) % 2, counts)
    return pixels.astype(np.uint8).reshape(width, height).T


@settings(derandomize=True, deadline=None, max_examples=40)
@given(masks)
def test_an_annotation_is_its_mask(mask: Mask) -> None:
    mask[tuple(size // 2 for size in mask.shape)] = 1  # not empty
    found = json.loads(json.dumps(coco.annotation(rle.from_mask(mask), mask.shape, 7, 3)))
    np.testing.assert_array_equal(decoded(found["segmentation"]), mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, width, height = found["bbox"]
    assert (top, top + height - 1, left, left + width - 1) == (rows[0], rows[-1], columns[0], columns[-1])
    assert (found["area"], found["id"], found["image_id"]) == (mask.sum(), 7, 3)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(masks)
def test_pycocotools_writes_the_same(mask: Mask) -> None:
    reference = pytest.importorskip("pycocotools.mask")
    mask[0, 0] = 1
    found = coco.annotation(rle.from_mask(mask), mask.shape, 1, 1)
    encoded = reference.encode(np.asfortranarray(mask))
    assert found["segmentation"]["counts"] == encoded["counts"].decode()
    assert (found["area"], found["bbox"]) == (reference.area(encoded), reference.toBbox(encoded).tolist())


def test_a_known_code() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[3:33, 10:50] = 1
    mask[12:14, 20:22] = 0
    assert coco.annotation(rle.from_mask(mask), mask.shape, 1, 1)["segmentation"] == KNOWN


def test_the_file_has_each_image_once_and_no_annotation_of_an_empty_mask(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    spans = [rle.EMPTY, rle.parse("1 3"), rle.EMPTY, rle.parse("5 1")]
    shapes = [(2, 4), (3, 4), (5, 6), (2, 3)]
    names = ["a.jpg", "ä/b.jpg", 'c".jpg', "d.jpg"]
    assert coco.write_coco(path, zip(names, shapes, spans, strict=True)) == 4
    content = json.loads(path.read_text())
    assert [(image["id"], image["file_name"]) for image in content["images"]] == list(enumerate(names, start=1))
    assert [(image["height"], image["width"]) for image in content["images"]] == shapes
    assert [(each["id"], each["image_id"]) for each in content["annotations"]] == [(1, 2), (2, 4)]
    assert [category["name"] for category in content["categories"]] == ["car"]
    assert {each["category_id"] for each in content["annotations"]} == {content["categories"][0]["id"]}
    assert coco.write_coco(path, iter([])) == 0
    assert json.loads(path.read_text())["images"] == json.loads(path.read_text())["annotations"] == []


def test_a_bad_mask_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    path.write_text("mine")

    def broken() -> Iterator[tuple[str, rle.Shape, rle.Spans]]:
        yield "a.jpg", (2, 4), rle.parse("1 3")
        raise ValueError("a bad row")

    with pytest.raises(ValueError, match="a bad row"):
        coco.write_coco(path, broken())
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
