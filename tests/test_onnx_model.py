"""An exported model without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from competition.command import Failure
from folds.frame import Frame
from inference.engine.onnx_model import INPUT, OUTPUT, Metadata, OnnxModel

ROOT = Path(__file__).parent.parent
METADATA = Metadata(
    version="1.0.0",
    run="x",
    width=8,
    height=4,
    fit="pad",
    threshold=0.4,
    tta=["identity"],
    folds=[0, 2],
    metrics={"fold 0": {"dice": 0.99, "iou": 0.98}},
    checkpoints={"fold0/best.safetensors": "0" * 64},
    license="Ask.",
)


def write_model(path: Path, texts: dict[str, str], size: tuple[int, int] = (4, 8)) -> Path:
    """A model whose probability is the mean of the channels, red 255 being 1."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[3], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", *size, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", *size])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [1 / 255])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, texts)
    onnx.save(model, str(path))
    return path


def test_a_model_has_the_frame_and_the_threshold_of_its_file(tmp_path: Path) -> None:
    model = OnnxModel.load(write_model(tmp_path / "x.onnx", METADATA.to_texts()), threads=1)
    assert (model.frame, model.threshold, model.metadata) == (Frame(4, 8, "pad"), 0.4, METADATA)


@pytest.mark.parametrize("count", [1, 3])
def test_levels_are_rounded_probabilities(tmp_path: Path, count: int) -> None:
    model = OnnxModel.load(write_model(tmp_path / "x.onnx", METADATA.to_texts()), threads=1)
    images = np.random.default_rng(1).integers(0, 256, (count, 4, 8, 3), dtype=np.uint8)
    assert np.allclose(model.probabilities(images), images.mean(axis=3) / 255, atol=1e-6)
    assert model.levels(images).dtype == np.uint8
    assert np.abs(model.levels(images) - images.mean(axis=3)).max() <= 0.5 + 1e-4


def test_metadata_is_text_and_survives() -> None:
    texts = METADATA.to_texts()
    assert texts["tta"] == '["identity"]'
    assert Metadata.of_texts(texts, Path("x.onnx")) == METADATA


BROKEN: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "another origin": (dict.clear, r"^\S*x\.onnx is an ONNX model of another origin: .* no project=carvana"),
    "no size": (lambda texts: (texts.pop("width"), texts.pop("threshold")), r"has no width, threshold; make export"),
    "no number": (lambda texts: texts.update(width="wide"), "is damaged"),
    "a size of 0": (lambda texts: texts.update(height="0"), "has the size 8 x 0"),
    "another mode": (lambda texts: texts.update(fit="crop"), "fit=crop"),
    "threshold 1": (lambda texts: texts.update(threshold="1.0"), r"threshold=1\.0, not between 0 and 1"),
    "another input": (lambda texts: texts.update(width="16"), "takes and returns"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_foreign_or_damaged_file_is_refused(tmp_path: Path, case: str) -> None:
    texts = METADATA.to_texts()
    change, message = BROKEN[case]
    change(texts)
    with pytest.raises(Failure, match=message):
        OnnxModel.load(write_model(tmp_path / "x.onnx", texts))


@settings(max_examples=25)
@given(st.sampled_from(sorted(METADATA.to_texts())), st.text() | st.integers().map(json.dumps))
def test_any_metadata_is_read_or_refused(name: str, text: str) -> None:
    try:
        made = Metadata.of_texts(METADATA.to_texts() | {name: text}, Path("x.onnx"))
    except Failure:
        return
    assert (made.height > 0, made.width > 0, 0 < made.threshold < 1) == (True, True, True)


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4", b"no model"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Failure, match=r"^(cannot read|onnxruntime cannot run) \S*x\.onnx"):
        OnnxModel.load(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.onnx", METADATA.to_texts())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Failure, match=r"x\.onnx"):
        OnnxModel.load(path)


def test_other_packages_are_not_needed(tmp_path: Path) -> None:
    """An environment has onnxruntime, numpy, OpenCV and Pillow, with what those need, and nothing else."""
    path = write_model(tmp_path / "x.onnx", METADATA.to_texts())
    code = f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "timm", "pandas", "pydantic", "yaml", "tqdm", "onnx", "safetensors"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
from pathlib import Path
import numpy as np
from inference.engine.onnx_model import OnnxModel
print(OnnxModel.load(Path({str(path)!r})).levels(np.full((1, 4, 8, 3), 255, np.uint8)).mean())
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout == "255.0\n"
