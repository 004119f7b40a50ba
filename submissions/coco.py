"""The masks of a submission as COCO annotations, which labelling and review tools import.

One JSON file with images, annotations and the category car (https://cocodataset.org/#format-data). A mask is a
compressed run-length code in the order and notation of pycocotools. The file is written one annotation at a time.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.files import replacing
from competition.rle import Shape, Spans

CATEGORY = {"id": 1, "name": "car", "supercategory": "vehicle"}


def write_coco(path: Path, masks: Iterable[tuple[str, Shape, Spans]]) -> int:
    """Write the annotations of images atomically, in the order of their masks; an empty mask has no annotation.

    Args:
        path: the JSON file.
        masks: name, (height, width) and spans of each image, consumed one at a time.

    Returns:
        The number of images.
    """
    images: list[str] = []  # about 100 bytes each
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        annotated = 0
        for number, (name, shape, spans) in enumerate(masks, start=1):
            images.append(json.dumps({"id": number, "file_name": name, "width": shape[1], "height": shape[0]}))
            if len(spans):
                annotated += 1
                _write_item(file, json.dumps(annotation(spans, shape, annotated, number)), first=annotated == 1)
        file.write('\n],\n"images": [')
        for number, image in enumerate(images):
            _write_item(file, image, first=number == 0)
        file.write(f'\n],\n"categories": [{json.dumps(CATEGORY)}]}}\n')
    return len(images)


def annotation(spans: Spans, shape: Shape, number: int, image: int) -> dict[str, Any]:
    """The annotation of a mask that is not empty.

    Args:
        spans: of the mask.
        shape: (height, width) of the image.
        number: id of the annotation.
        image: id of the image.
    """
    height, width = shape
    columns = rle.from_mask(rle.to_mask(spans, shape).T)  # spans of the mask, column by column
    left, right = columns[0, 0] // height, (columns[-1, 1] - 1) // height
    top, bottom = spans[0, 0] // width, (spans[-1, 1] - 1) // width
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "segmentation": {"size": [height, width], "counts": compressed(counts(columns, height * width))},
        "area": rle.area(spans),
        "bbox": [int(left), int(top), int(right - left + 1), int(bottom - top + 1)],
        "iscrowd": 0,
    }


def counts(spans: Spans, pixels: int) -> NDArray[np.int64]:
    """The lengths of background and car in turn, beginning with background, which may have length 0.

    Args:
        spans: of a mask in column-major order.
        pixels: of the image.
    """
    lengths = np.diff(np.concatenate([[0], spans.ravel(), [pixels]]))
    return lengths if lengths[-1] else lengths[:-1]


def compressed(numbers: NDArray[np.int64]) -> str:
    """The notation of ``rleToString`` in COCO's maskApi.c.

    From the fourth on, a number is replaced by its difference from the second one before. It is written from its low
    to its high end, 5 bits in each character, with a bit for "more follows", plus 48.
    """
    values = numbers.copy()
    values[3:] -= numbers[1:-2]
    digits: list[NDArray[np.int64]] = []
    used: list[NDArray[np.bool_]] = []
    more = np.ones(values.size, np.bool_)
    while more.any():
        digit = values & 31
        values >>= 5
        used.append(more)
        # The highest of the 5 bits is the sign: nothing follows if the rest of the number is the sign, too.
        more = more & (values != np.where(digit & 16, -1, 0))
        digits.append(digit + 32 * more + 48)
    return np.stack(digits, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes().decode("ascii")


def _write_item(file: IO[str], item: str, *, first: bool) -> None:
    """Write an item of a list in a line of its own."""
    file.write(f"{'' if first else ','}\n{item}")
