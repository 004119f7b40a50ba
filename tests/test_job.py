"""Cutting out many photos: errors of single photos, resume, and results that do not depend on the neighbours."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from brightness import Brightness
from conftest import ROOT, full_disk, tiny_car
from PIL import Image

from competition.images import read_rgb
from folds.frame import Frame
from inference.cutouts import job
from inference.cutouts.job import Order, Outcome
from inference.cutouts.manifest import NAME, Manifest
from inference.cutouts.photos import find_photos
from inference.engine.host_masks import level_of

KILLED_AFTER = 3  # photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos in two folders, and one that is damaged."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(7):
        pixels, _ = tiny_car(seed=number)
        name = f"{'sub/' * (number % 2)}car {number}.{'jpg' if number % 3 else 'png'}"
        Image.fromarray(pixels[: 64 - 4 * number]).save(folder / name)
    (folder / "bad.jpg").write_bytes((folder / "car 2.jpg").read_bytes()[:300])
    return folder


def cut(photos: Path, out: Path, *kinds: str, key: str = "k", model: Brightness | None = None, **how: int) -> Outcome:
    order = Order(out, kinds or ("rgba",), bool(how.pop("crop", False)), key, **how)
    manifest, found = Manifest(out), find_photos([str(photos)])
    tasks = job.plan(found, manifest, order)
    return job.run(tasks, manifest, order, lambda: model or Brightness())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_mirror_the_folder_and_a_bad_photo_is_skipped(photos: Path, tmp_path: Path) -> None:
    outcome = cut(photos, tmp_path / "out", "rgba", "mask")
    assert outcome.written == 7
    assert len(outcome.problems) == 1
    assert "bad.jpg is damaged" in outcome.problems[0]
    files = contents(tmp_path / "out").keys() - {NAME}
    stems = [f"{'sub/' * (number % 2)}car {number}" for number in range(7)]
    assert files == {f"{stem}{ending}.png" for stem in stems for ending in ("", "_mask")}


def test_the_mask_is_that_of_the_pipeline(photos: Path, tmp_path: Path) -> None:
    cut(photos, tmp_path / "out", "mask")
    model = Brightness()
    for found in find_photos([str(photos / "sub")]).photos:
        photo = job.as_photo(found)
        levels = model.frame.full_size(model.levels(model.frame.read(photo)[None])[0], photo.shape)
        mask = np.asarray(Image.open(tmp_path / "out" / "sub" / f"{found.path.stem}_mask.png"))
        assert np.array_equal(mask == 255, levels >= level_of(model.threshold))


def test_photos_that_do_not_fit_a_padded_frame_are_skipped(photos: Path, tmp_path: Path) -> None:
    outcome = cut(photos, tmp_path / "out", model=Brightness(Frame(50, 96, "pad")))
    assert outcome.written == 3
    assert sum("larger than the frame of 96 x 50" in problem for problem in outcome.problems) == 4


def test_photos_without_an_object_are_named(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(photos / "dark.png")
    assert cut(photos, tmp_path / "out", crop=1).empty == [photos / "dark.png"]
    assert Image.open(tmp_path / "out" / "dark.png").size == (9, 9)
    assert Image.open(tmp_path / "out" / "car 0.png").size < (96, 64)


@pytest.mark.parametrize("how", [{"batch_size": 3}, {"readers": 1}, {"batch_size": 2, "readers": 5}])
def test_results_do_not_depend_on_batches_or_threads(photos: Path, tmp_path: Path, how: dict[str, int]) -> None:
    for folder, settings in (("one", {}), ("other", how)):
        cut(photos, tmp_path / folder, "rgba", "soft", **settings)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_only_what_is_missing_or_changed_is_done_again(photos: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", Brightness()
    cut(photos, out, "rgba")
    (out / "car 2.png").unlink()
    Image.fromarray(read_rgb(photos / "car 4.jpg")[::-1]).save(photos / "car 4.jpg")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert cut(photos, out, "rgba", model=model).written == 2
    assert sum(model.calls) == 2
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert sorted(path.name for path in after if after[path] != before.get(path)) == ["car 2.png", "car 4.png"]
    assert cut(photos, out, "rgba", "mask").written == 7  # another kind
    assert cut(photos, out, "rgba", key="other").written == 7  # other weights
    assert len(list(out.rglob("*.png"))) == 14


def test_kills_change_nothing(photos: Path, tmp_path: Path) -> None:
    """Killed after each third photo, before or after the manifest has the picture; also in the middle of a line."""
    cut(photos, tmp_path / "whole", "rgba", "mask")
    out, kills = tmp_path / "out", 0
    code = (
        "import os, signal, sys, itertools\nsys.path.insert(0, 'tests')\n"
        "from pathlib import Path\nimport test_job\nfrom inference.cutouts.manifest import Manifest\n"
        "complete, count = Manifest.complete, itertools.count(1)\n"
        "def die(self, file, entries):\n"
        "    if next(count) == test_job.KILLED_AFTER:\n"
        "        complete(self, file, entries[:1])\n"
        "        file.write('{\"photo\": ' ); file.flush()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    complete(self, file, entries)\n"
        "Manifest.complete = die\n"
        "test_job.cut(Path(sys.argv[1]), Path(sys.argv[2]), 'rgba', 'mask')\n"
    )
    for _ in itertools.count():
        done = subprocess.run([sys.executable, "-c", code, str(photos), str(out)], cwd=ROOT, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
    assert kills == 3
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_ends_the_command_and_leaves_no_half_picture(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match=r"cannot write .*\.png: "), full_disk(size=2500):
        cut(photos, out, "rgba")
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    assert cut(photos, out, "rgba").written
    cut(photos, tmp_path / "whole", "rgba")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_photo_that_changes_while_it_is_read_is_skipped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changes(Brightness):
        def levels(self, images):
            os.utime(photos / "car 2.jpg", (1, len(self.calls)))
            return super().levels(images)

    outcome = cut(photos, tmp_path / "out", model=Changes())
    assert [problem for problem in outcome.problems if "car 2.jpg changed while it was read" in problem]
    assert not (tmp_path / "out" / "car 2.png").exists()
