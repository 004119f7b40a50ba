"""The engine of a run whose networks onnxruntime may not be able to compute."""

import shutil

import pytest
import torch
from torch import Tensor, nn
from trained_run import Trained

from competition.run.folder import RunFolder
from competition.run.records import CV, SubmissionRecord, TrialExport
from competition.settings.resolve import load_settings
from competition.settings.schema import Inference, Settings
from inference.engine import trial_export
from inference.engine.trial_export import with_able_engine
from inference.predict import main as predict
from inference.score import main as score
from inference.trained import trained_folds

CPU = torch.device("cpu")
AUTO = Inference()


@pytest.fixture(autouse=True)
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bf16, and no trials before."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    monkeypatch.setattr(trial_export, "_tried", {})


class Entropy(nn.Module):
    """Computes with an operation that torch's exporter does not know."""

    divisor = 8

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.special.entr(pixels.float().mean(dim=1, keepdim=True))


class FirstOnly(nn.Module):
    """Is exported with the number of images that it is traced with."""

    divisor = 8

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().mean(dim=1, keepdim=True) + torch.arange(len(pixels)).view(-1, 1, 1, 1)


def test_a_trial_is_kept_until_the_network_or_a_package_changes(trained: Trained) -> None:
    assert with_able_engine(AUTO, CPU, [trained.run]) is AUTO
    file = trained.run.trial_export
    made = TrialExport.read(file)
    assert made.problem == ""
    assert None not in made.packages.values()
    made.model_copy(update={"problem": "it was so before"}).write(file)
    assert with_able_engine(AUTO, CPU, [trained.run]).engine == "torch"
    for changed in ({"packages": {}}, {"network": made.network.model_copy(update={"width": 16})}):
        made.model_copy(update={"problem": "it was so before", **changed}).write(file)
        assert with_able_engine(AUTO, CPU, [trained.run]) is AUTO
    file.write_text("{")
    assert with_able_engine(AUTO, CPU, [trained.run]) is AUTO
    assert TrialExport.read(file) == made


@pytest.mark.parametrize(
    ("network", "reason"), [(Entropy, "onnxruntime cannot compute this network"), (FirstOnly, "differ")]
)
def test_torch_computes_what_onnxruntime_cannot(
    trained: Trained,
    network: type[nn.Module],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def other(settings: Settings, pretrained: bool = True) -> nn.Module:
        del pretrained
        return network()

    monkeypatch.setattr(trial_export, "make_network", other)
    chosen = with_able_engine(AUTO, CPU, [trained.run])
    assert chosen.engine == "torch"
    printed = capsys.readouterr().out
    assert printed.startswith(f"note: torch computes the networks of run {trained.run.name}, because ")
    assert reason in printed
    assert printed.count("\n") == 1
    by_hand = Inference(engine="onnxruntime")
    assert with_able_engine(by_hand, CPU, [trained.run]) is by_hand


def test_one_run_that_needs_torch_decides_for_all(trained: Trained) -> None:
    other = RunFolder(trained.run.root.with_name("other"))
    shutil.copytree(trained.run.root, other.root)
    assert with_able_engine(AUTO, CPU, [trained.run, other]) is AUTO
    found = TrialExport.read(other.trial_export)
    found.model_copy(update={"problem": "an operation is missing"}).write(other.trial_export)
    assert with_able_engine(AUTO, CPU, [trained.run, other]).engine == "torch"


def test_all_commands_choose_the_same_engine(trained: Trained) -> None:
    assert with_able_engine(AUTO, CPU, [trained.run]) is AUTO
    found = TrialExport.read(trained.run.trial_export)
    found.model_copy(update={"problem": "an operation is missing"}).write(trained.run.trial_export)
    quickly = [*trained.arguments, "--set", "inference.tta=[identity]"]
    score(quickly)
    predict(quickly)
    assert CV.read(trained.run.cv).engine == "torch"
    assert SubmissionRecord.read(trained.run.submission_record).engine == "torch"
    folds = trained_folds(trained.run, load_settings(trained.run.settings), CPU)
    assert folds.facts()["engine"] == "torch"
