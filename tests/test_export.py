"""A run as one ONNX file."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from trained_run import Trained

from competition.command import Failure
from competition.files import sha256
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from competition.studio.sample import photos_of_a_car
from folds.checkpoint import load_weights
from folds.frame import Frame
from folds.networks.build import make_network
from inference import export
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import level_of
from inference.engine.onnx_model import OnnxModel

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exported(trained_once: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both folds of the run."""
    file = tmp_path_factory.mktemp("exported") / "x.onnx"
    export.main([*trained_once.arguments, "--file", str(file), "--set", "inference.threshold=0.4"])
    return file


def test_probabilities_and_masks_are_those_of_torch(trained_once: Trained, exported: Path) -> None:
    loaded = [load_weights(trained_once.run.best(fold)) for fold in (0, 1)]
    settings = loaded[0][1]
    frame, tta = Frame.of(settings.input), settings.inference.tta
    torchs = Ensemble([network for network, _, _ in loaded], frame, tta, device=CPU, precision="fp32")
    model = OnnxModel.load(exported, threads=1)
    images = np.stack(photos_of_a_car(range(1, 6), seed=7, width=96))
    assert model.frame == frame == Frame(images.shape[1], images.shape[2], "resize")
    for count in (5, 1):
        theirs = torchs.probabilities(torch.from_numpy(images[:count])).numpy()[:, 0]
        assert np.abs(model.probabilities(images[:count]) - theirs).max() < 1e-5
        level = level_of(model.threshold)
        assert np.array_equal(model.levels(images[:count]) >= level, np.rint(theirs * 255) >= level)


def test_the_file_describes_itself(trained_once: Trained, exported: Path) -> None:
    model = onnx.load(str(exported))
    onnx.checker.check_model(model, full_check=True)
    metadata = OnnxModel.load(exported).metadata
    assert (metadata.run, metadata.folds, metadata.tta, metadata.threshold) == (
        "small",
        [0, 1],
        ["identity", "hflip"],
        0.4,
    )
    assert metadata.checkpoints["fold1/best.safetensors"] == sha256(trained_once.run.best(1))
    assert set(metadata.metrics) == {"fold 0", "fold 1"}
    assert "rules of the competition" in metadata.license


def test_weights_are_stored_once(trained_once: Trained, exported: Path) -> None:
    """Two test-time augmentations use each of them. Transposed convolutions have 16 weights where there were 9."""
    weights = sum(trained_once.run.best(fold).stat().st_size for fold in (0, 1))
    assert exported.stat().st_size < 1.3 * weights


def test_folds_that_are_not_trained_are_left_out_and_named(
    trained: Trained, capfd: pytest.CaptureFixture[str]
) -> None:
    trained.run.best(0).unlink()
    export.main(trained.arguments)
    printed = capfd.readouterr()
    assert printed.out.startswith("note: not trained, so left out: fold 0\n")
    assert "small.onnx: fold 1; tta identity, hflip; input 96 x 64; " in printed.out
    assert "compared with torch on 3 generated photos" in printed.out
    assert printed.out.splitlines()[-1].endswith(f": make cutout PHOTOS=photo.jpg MODEL={trained.run.exported(None)}")
    assert printed.err == ""
    with pytest.raises(Failure, match=r"fold 0 is not trained, .* is missing: make train FOLD=0 RUN="):
        export.main([*trained.arguments, "--fold", "0"])
    with pytest.raises(Failure, match="has no fold 2; its folds are 0, 1"):
        export.main([*trained.arguments, "--fold", "2"])


def test_a_file_that_differs_from_torch_gets_no_name(
    trained_once: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(network: nn.Module) -> nn.Module:
        return make_network(
            resolve({"input": {"height": 64, "width": 96}, "network": {"width": 8, "depth": 3}})
        ).eval()

    monkeypatch.setattr(export, "prepare", other)
    file = tmp_path / "x.onnx"
    with pytest.raises(Failure, match=r"differ from those of torch by .*x\.onnx was not written"):
        export.main([*trained_once.arguments, "--file", str(file)])
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_onnx_file(trained_once: Trained, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"x\.zip must end in \.onnx"):
        export.main([*trained_once.arguments, "--file", str(tmp_path / "x.zip")])


def test_missing_packages_are_named(trained_once: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.engine.onnx_graph.find_spec", lambda name: None)
    with pytest.raises(Failure, match="packages that are missing: onnx onnxruntime; install them: pip install onnx"):
        export.main(trained_once.arguments)


def test_a_run_without_networks(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no run "):
        export.main(["--run", str(tmp_path / "nothing")])
    for fold in (0, 1):
        shutil.rmtree(RunFolder(trained.run.root).fold(fold))
    with pytest.raises(Failure, match="no fold of run small is trained: make train FOLD=0"):
        export.main(trained.arguments)
