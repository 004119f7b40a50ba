from pathlib import Path

import pytest

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.create import record_run
from competition.run.environment import git_revision
from competition.run.folder import RunFolder
from competition.run.open import require_same_data
from competition.run.records import Environment
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Settings


@pytest.fixture
def run(tiny_data: Path, tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    record_run(run, Settings(), DataFolder(tiny_data), "cpu")
    return run


def test_a_run_is_recorded_once(run: RunFolder, tiny_data: Path) -> None:
    assert resolve(load_yaml(run.settings)) == Settings()
    environment = Environment.read(run.environment)
    assert environment.data == str(tiny_data.resolve())
    assert environment.fingerprint == DataFolder(tiny_data).fingerprint
    assert environment.device == "cpu"
    assert environment.packages["numpy"]
    assert environment.git == git_revision()
    before = run.settings.read_bytes(), run.environment.read_bytes()
    record_run(run, resolve({"seed": 7}), DataFolder(tiny_data), "cuda")
    assert (run.settings.read_bytes(), run.environment.read_bytes()) == before


def test_other_data(run: RunFolder, tiny_data: Path, own_data: Path) -> None:
    require_same_data(run, DataFolder(own_data))  # a copy has the same fingerprint
    next((own_data / "train").iterdir()).unlink()
    with pytest.raises(Failure, match=f"are not those that run run was made from .{tiny_data}"):
        require_same_data(run, DataFolder(own_data))


def test_git_revision_does_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = git_revision()
    monkeypatch.chdir(tmp_path)
    assert git_revision() == before
    assert before is None or len(before.rstrip("+")) >= 7
