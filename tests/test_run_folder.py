from pathlib import Path

import pytest

from competition.run.folder import OtherData, RunFolder, run_at, variables_of


def test_run_at_a_name_or_a_path() -> None:
    assert run_at("a").root == Path("runs/a")
    assert run_at("elsewhere/a").root == Path("elsewhere/a")
    assert run_at("/tmp/a").name == "a"


@pytest.mark.parametrize("name", ["mine", "runs/mine", "runs/ablation/bce", "/elsewhere/mine"])
def test_called_names_the_run(name: str) -> None:
    assert run_at(run_at(name).called) == run_at(name)
    assert "/" not in run_at("mine").called


def test_variables_name_the_masks() -> None:
    run = run_at("mine")
    assert run.variables == {"RUN": "mine"}
    other = OtherData(run.predictions / "photos", run, Path("my photos"))
    assert (other.variables, other.root) == (
        {"RUN": "mine", "DATA": "my photos"},
        Path("runs/mine/predictions/photos"),
    )
    assert variables_of(run.root) == {"RUN": "mine"}
    assert variables_of(other.root) == {"RUN": "mine", "DATA": "..."}


def test_paths_of_folds() -> None:
    run = RunFolder(Path("runs/a"))
    assert run.last(2) == Path("runs/a/fold2/last.pt")
    assert run.best(0) == Path("runs/a/fold0/best.safetensors")
    assert run.history(1) == Path("runs/a/fold1/history.jsonl")
    assert run.pseudo(1) == Path("runs/a/pseudo/fold1.csv.gz")


def test_no_two_files_share_a_path() -> None:
    run = RunFolder(Path("runs/a"))
    properties = [name for name in dir(RunFolder) if isinstance(getattr(RunFolder, name), property)]
    of_run = [getattr(run, name) for name in properties]
    paths = [path for path in of_run if isinstance(path, Path)]
    paths += [path(0) for path in (run.last, run.best, run.history, run.pseudo, run.learned_pseudo)]
    assert len(paths) > 18
    assert len(set(paths)) == len(paths)
