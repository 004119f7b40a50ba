"""`make cutout` as its user sees it, with a trained run and with an exported model."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from trained_run import Trained

from competition import rle
from competition.command import Failure
from competition.exif import TAG
from competition.images import Pixels
from competition.mask_table import read_rows
from inference import cutout, export, predict

Says = Callable[[], str]
# Loads no package that an environment for exported models lacks.
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "pandas", "pydantic", "tqdm", "yaml", "safetensors", "sklearn"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    def read() -> str:
        found = capsys.readouterr()
        return found.out + found.err

    return read


@pytest.fixture
def photos(trained: Trained, tmp_path: Path) -> Path:
    """Three test photos; one lies in a subfolder, turned by a phone."""
    folder = tmp_path / "My Photos"
    (folder / "Köln").mkdir(parents=True)
    first, second, third = sorted((trained.data / "test").glob("*.jpg"))[:3]
    shutil.copy(first, folder)
    shutil.copy(second, folder)
    exif = Image.Exif()
    exif[TAG] = 6
    Image.open(third).transpose(Image.Transpose.ROTATE_90).save(folder / "Köln" / "IMG 1.JPG", exif=exif, quality=95)
    return folder


def mask_in(folder: Path, stem: str) -> Pixels:
    return np.asarray(Image.open(folder / f"{stem}_mask.png")) // 255


def test_the_masks_are_those_of_the_submission(trained: Trained, photos: Path, says: Says) -> None:
    predict.main([*trained.arguments, "--set", "inference.batch_size=1"])
    cutout.main([str(photos), *trained.arguments, "--type", "mask"])
    assert "folds 0, 1 of run small (mean Dice 0." in says()
    rows = {row.img: row.rle for row in read_rows(trained.run.submission)}
    for photo in photos.glob("*.jpg"):
        assert rle.to_text(rle.from_mask(mask_in(trained.run.cutouts, photo.stem))) == rows[photo.name]
    assert mask_in(trained.run.cutouts, "Köln/IMG 1").shape == (160, 240)  # upright


def test_one_fold_is_enough_and_the_second_call_has_nothing_to_do(trained: Trained, photos: Path, says: Says) -> None:
    trained.run.best(0).unlink()
    line = [str(photos), *trained.arguments, "--type", "rgba", "white", "--crop"]
    cutout.main(line)
    assert "fold 1 of run small (Dice 0." in (said := says())
    assert said.count("cutting out 3 photos with fold 1 of run small") == 1
    assert "note: not trained, so left out: fold 0" in said
    picture = Image.open(trained.run.cutouts / "Köln" / "IMG 1.png")
    assert picture.mode == "RGBA"
    assert picture.width < 240 or picture.height < 160, "cut to the object"
    shutil.rmtree(photos / "Köln")
    cutout.main(line)
    assert says().endswith("has the cut-outs of all 2 photos; nothing to do\n")
    cutout.main([*line, "--set", "inference.threshold=0.7"])
    assert f"{trained.run.cutouts}: 2 photos cut out (rgba, white)" in says()


def test_bad_photos_are_named_at_the_end(trained: Trained, photos: Path, tmp_path: Path, says: Says) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n")
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (photos / "camera.cr2").write_bytes(b"raw")
    with pytest.raises(Failure, match="2 of 5 photos skipped, for the reasons above"):
        cutout.main([str(photos), *trained.arguments, "--fold", "1", "--out", str(tmp_path / "out")])
    said = says()
    assert "with fold 1 of run small" in said
    assert "note: images of kinds that are not read: 1 .cr2" in said
    assert f"skipped: {photos}/broken.png is not an image" in said
    assert f"skipped: {photos}/phone.heic is a HEIC photo; `pip install pillow-heif`" in said
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (["nowhere"], "PHOTOS=nowhere: there is no such file or folder"),
        ([], "no photos are named"),
        (["."], r"OUT=.* lies inside \."),
        (["{empty}"], "no photo in .*empty"),
        (["{photos}", "--type", "rgba", "blurred"], "TYPE=blurred is not a kind of picture"),
        (["{photos}", "--fold", "5"], "run small has no fold 5; its folds are 0, 1"),
        (["{photos}", "--set", "train.lr=1"], "run small was made with other settings"),
        (["{photos}", "--out", "{photos}/out"], "lies inside .*My Photos"),
        (["{photos}", "--out", "{photos}/Köln/IMG 1.JPG"], r"OUT=.*JPG is a file; name a folder"),
        (["{photos}", "--out", "{photos}/Köln/IMG 1.JPG/x"], "lies inside|cannot write"),
    ],
)
def test_what_cannot_be_done_is_refused(
    trained: Trained, photos: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], problem: str
) -> None:
    monkeypatch.chdir(photos.parent)
    empty = photos.parent / "empty"
    empty.mkdir()
    before = sorted(photos.parent.rglob("*"))
    with pytest.raises(Failure, match=problem):
        cutout.main([word.format(photos=photos, empty=empty) for word in line] + trained.arguments)
    assert sorted(photos.parent.rglob("*")) == before


def test_a_run_that_is_not_trained(trained: Trained, photos: Path) -> None:
    for fold in (0, 1):
        trained.run.best(fold).unlink()
    with pytest.raises(Failure, match="no fold of run small is trained: make train FOLD=0"):
        cutout.main([str(photos), *trained.arguments])
    with pytest.raises(Failure, match=r"no run runs/nowhere; .*; without RUN, the studio weights cut out"):
        cutout.main([str(photos), "--run", "nowhere"])


def test_without_a_run_the_studio_weights_cut_out(
    trained: Trained, photos: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "inference.tta=[identity]"
    cutout.main([str(photos), "--type", "mask", "--set", small])
    assert "cutting out 3 photos with the studio weights (Dice 0." in says()
    assert mask_in(tmp_path / "cutouts", "Köln/IMG 1").shape == (160, 240)
    for wrong, problem in (("train.lr=1", "train.lr of the studio weights cannot be changed"), ("x=1", "x")):
        with pytest.raises(Failure, match=problem):
            cutout.main([str(photos), "--set", wrong])
    with pytest.raises(Failure, match="the studio weights have no folds"):
        cutout.main([str(photos), "--fold", "0"])
    trained.run.root.rename(trained.run.root.with_name("default"))
    cutout.main([str(photos), "--type", "mask"])
    assert "with folds 0, 1 of run default (mean Dice 0." in says()
    cutout.main([str(photos), "--type", "mask", "--run", "studio", "--set", small])
    assert "cutouts has the cut-outs of all 3 photos; nothing to do" in says()


def without_torch(code: str, *arguments: object) -> str:
    """The output of code in a process that cannot import torch."""
    command = [sys.executable, "-c", REFUSE + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_exported_model_cuts_out_without_torch(trained: Trained, photos: Path, tmp_path: Path) -> None:
    export.main(trained.arguments)
    cutout.main([str(photos), *trained.arguments, "--type", "mask"])
    model, out = trained.run.exported(), tmp_path / "out"
    line = (photos, "--model", model, "--out", out, "--type", "mask", "rgba")
    said = without_torch("from inference.cutout_onnx import main; main(sys.argv[1:])", *line)
    assert f"cutting out 3 photos with model {model} -> {out}" in said
    for photo in photos.rglob("*.[jJ]*"):
        stem = str(photo.relative_to(photos).with_suffix(""))
        assert np.array_equal(mask_in(out, stem), mask_in(trained.run.cutouts, stem))
    code = (
        "from inference.segmenter_onnx import Segmenter; print(Segmenter.load(sys.argv[1]).cutout(sys.argv[2]).shape)"
    )
    assert without_torch(code, model, next(photos.glob("*.jpg"))) == "(160, 240, 4)\n"
