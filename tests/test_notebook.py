"""The notebook runs against a tree like Kaggle's: input that is only read, a folder for results, no network."""

import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trained_run import SMALL, Trained

from competition.command import OutOfTime
from competition.deadline import Deadline
from competition.run.folder import RunFolder
from competition.run.pack import main as pack
from competition.run.records import CV, Validated
from folds.train import main as train

ROOT = Path(__file__).parent.parent
PARTS = (
    "competition",
    "folds",
    "inference",
    "submissions",
    "Makefile",
    "requirements.txt",
    "requirements-bench.txt",
    "requirements-onnx.txt",
    "pyproject.toml",
)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file and folder."""
    stats = {str(path): path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def zip_of(file: Path, root: Path, name: str, stored_as: str) -> None:
    """Kaggle's archive of a table or of a folder of images."""
    source = root / name
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(source.iterdir()) if source.is_dir() else [source]:
            archive.write(path, f"{stored_as}/{path.name}" if source.is_dir() else stored_as)


def kaggle_tree(folder: Path, data: Path) -> Path:
    """The folder /kaggle with the competition's eight archives and the code as input."""
    kaggle, competition = folder / "kaggle", folder / "kaggle" / "input" / "carvana-image-masking-challenge"
    competition.mkdir(parents=True)
    for name in ("train", "test", "train_masks", "train_masks.csv", "sample_submission.csv", "metadata.csv"):
        zip_of(competition / f"{name}.zip", data, name, name)
    for name in ("train", "test"):
        zip_of(competition / f"{name}_hq.zip", data, name, f"{name}_hq")
    code = kaggle / "input" / "carvana-pipeline" / "carvana-main"
    code.mkdir(parents=True)
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        options = {"ignore": shutil.ignore_patterns("__pycache__")} if (ROOT / name).is_dir() else {}
        copy(ROOT / name, code / name, **options)
    return kaggle


def stop_in_fold_1(trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run after a notebook that ended in the third update of fold 1, packed."""
    run = RunFolder(folder / "earlier" / "first")
    shutil.copytree(trained.run.root, run.root, ignore=shutil.ignore_patterns("fold1"))
    left = iter([True] * 3)
    with monkeypatch.context() as patch, pytest.raises(OutOfTime):
        patch.setattr(Deadline, "leaves", lambda _: next(left, False))
        train(["--fold", "1", "--run", str(run.root), "--data", str(trained.data), "--hours", "11"])
    pack(["--run", str(run.root), "--state", "--file", str(folder / "kaggle" / "input" / "earlier" / "first.zip")])
    return folder / "kaggle" / "input" / "earlier" / "first.zip"


def output_of(cell: dict[str, Any]) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@pytest.mark.long
def test_from_kaggles_archives_to_a_valid_submission(
    trained_once: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib  # here, because every worker of pytest-xdist imports this file
    import nbformat
    from nbclient import NotebookClient

    kaggle = kaggle_tree(tmp_path, trained_once.data)
    earlier = stop_in_fold_1(trained_once, tmp_path, monkeypatch)
    for path in (kaggle / "input").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    home, work, output = tmp_path / "home", kaggle / "temp", kaggle / "working"
    for folder in (home, work, output):
        folder.mkdir()
    before = files_of(kaggle / "input")

    notebook = nbformat.read(ROOT / "notebooks" / "kaggle.ipynb", as_version=4)
    nbformat.validate(notebook)
    values = {
        "DATA_SOURCE": f"{kaggle}/input/carvana-image-masking-challenge",
        "CODE": f"{kaggle}/input/carvana-pipeline",
        "EARLIER": str(earlier),
        "WORK": str(work),
        "OUTPUT": str(output),
        "PRESET": "demo",
        "SET": " ".join(setting.replace(" ", "") for setting in SMALL),
        "NPROC": "",
    }
    first = next(index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    assert all(f"\n{name} = " in notebook.cells[first].source for name in values)
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(given))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MPLCONFIGDIR": matplotlib.get_configdir(),  # its list of fonts takes seconds to make
        "no_proxy": "",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    environment.pop("CARVANA_STARTED", None)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute(cwd=str(work), env=environment)

    screen = "\n".join(output_of(cell) for cell in notebook.cells)
    assert "error" not in screen.lower(), screen
    for line in ("64 training photos with masks", "fold 1 resumes in epoch 1"):
        assert line in screen, screen
    run = RunFolder(work / "carvana" / "runs" / "first")
    ours, theirs = (load_file(one.best(1)) for one in (run, trained_once.run))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items()), "as without an interruption"
    assert CV.read(run.cv).dice > 0.88
    assert Validated.read(run.validated).rows == 32
    assert {path.name for path in output.iterdir()} == {"first.zip", "submission.csv.gz", "report.html"}
    assert files_of(kaggle / "input") == before
    assert not list(home.iterdir())
