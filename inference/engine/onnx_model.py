"""A model that ``make export`` wrote, without torch: onnxruntime, numpy and OpenCV are enough.

The file contains all folds, the test-time augmentations and their mean. What else a prediction needs, the frame and
the threshold, is in the metadata of the file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from competition.command import Failure, os_reason
from competition.images import Pixels
from folds.frame import Frame
from inference.engine.onnx_session import default_threads, open_session

PROJECT = "carvana"
INPUT = "images"  # (N, h, w, 3) uint8 RGB in the frame
OUTPUT = "probabilities"  # (N, h, w) float32, the mean probability of car


@dataclass(frozen=True)
class Metadata:
    """What an exported file says about itself: a text for each field, in ``metadata_props``. Other texts are JSON.

    Attributes:
        project: ``PROJECT``; other files are refused.
        version: of the project.
        run: the name of the run.
        width: of the frame, pixels; height likewise.
        fit: how photos are brought to that size, ``input.fit``.
        threshold: lowest probability that counts as car.
        tta: the test-time augmentations that are averaged.
        classes: what the output is the probability of.
        folds: the folds whose networks are averaged.
        metrics: mean Dice and IoU of held-out photos, by what was scored.
        checkpoints: SHA-256 of each fold's weights.
        license: of the data.
    """

    version: str
    run: str
    width: int
    height: int
    fit: Literal["resize", "pad"]
    threshold: float
    tta: list[str]
    folds: list[int]
    metrics: dict[str, dict[str, float]]
    checkpoints: dict[str, str]
    license: str
    classes: list[str] = field(default_factory=lambda: ["car"])
    project: str = PROJECT

    @property
    def frame(self) -> Frame:
        """The frame of the networks."""
        return Frame(self.height, self.width, self.fit)

    def to_texts(self) -> dict[str, str]:
        """As ONNX keeps it."""
        values = asdict(self).items()
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str], path: Path) -> Self:
        """Read the metadata of a file; a Failure names what is missing or wrong."""
        advice = "make export RUN=... writes such a file"
        if texts.get("project") != PROJECT:
            raise Failure(
                f"{path} is an ONNX model of another origin: its metadata has no project={PROJECT}, so the size, the "
                f"resize mode and the threshold of its photos are not known; {advice}"
            )
        missing = [each.name for each in fields(cls) if each.name not in texts]
        if missing:
            raise Failure(f"the metadata of {path} has no {', '.join(missing)}; {advice}")
        try:
            made = cls(**{each.name: _value(each.type, texts[each.name]) for each in fields(cls)})
        except (ValueError, RecursionError) as error:
            raise Failure(f"the metadata of {path} is damaged ({error}); {advice}") from error
        if not (_is_size(made.width) and _is_size(made.height)):
            raise Failure(f"the metadata of {path} has the size {made.width} x {made.height}; {advice}")
        if made.fit not in ("resize", "pad"):
            raise Failure(f"the metadata of {path} has fit={made.fit}, which is neither resize nor pad; {advice}")
        if not (isinstance(made.threshold, float) and 0 < made.threshold < 1):
            raise Failure(f"the metadata of {path} has threshold={made.threshold}, not between 0 and 1; {advice}")
        return made


class OnnxModel:
    """An exported model, ready to predict.

    Args:
        session: of onnxruntime.
        metadata: of its file.
    """

    def __init__(self, session: Any, metadata: Metadata) -> None:
        self.session = session
        self.metadata = metadata
        self.frame = metadata.frame
        self.threshold = metadata.threshold

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> Self:
        """Read a file of ``make export``.

        Args:
            path: the file.
            threads: by default OMP_NUM_THREADS, or the number of cores.
        """
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise Failure(f"cannot read {path}: {os_reason(error)}") from error
        try:
            session = open_session(str(path), threads or default_threads())
        except Failure:
            raise
        except Exception as error:  # onnxruntime has an exception for each status, with no common base
            reason = " ".join(str(error).split())[:200]
            raise Failure(f"onnxruntime cannot run {path} ({reason}); copy it again") from error
        metadata = Metadata.of_texts(session.get_modelmeta().custom_metadata_map, path)
        _require_interface(session, metadata, path)
        return cls(session, metadata)

    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """The mean probability of car, (N, h, w), for (N, h, w, 3) uint8 RGB in the frame."""
        found: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: images})[0]
        return found

    def levels(self, images: Pixels) -> Pixels:
        """The mean probability as (N, h, w) uint8 levels, rounded as ``folds.validation.to_levels`` does."""
        levels: Pixels = np.rint(self.probabilities(images) * np.float32(255)).astype(np.uint8)
        return levels


def _require_interface(session: Any, metadata: Metadata, path: Path) -> None:
    """Require the input and the output of an exported model; the number of photos is free."""
    shape = (metadata.height, metadata.width)
    found = [
        (each.name, each.type, tuple(each.shape[1:])) for each in (*session.get_inputs(), *session.get_outputs())
    ]
    wanted = [(INPUT, "tensor(uint8)", (*shape, 3)), (OUTPUT, "tensor(float)", shape)]
    if found != wanted:
        raise Failure(f"{path} takes and returns {found}, not {wanted}; make export RUN=... writes it again")


def _value(kind: Any, text: str) -> Any:
    return text if kind is str or getattr(kind, "__origin__", None) is Literal else json.loads(text)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096
