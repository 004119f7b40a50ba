"""The studio: its file format, determinism, masks, and resuming after a kill."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from competition import rle
from competition.command import Failure
from competition.startup import INTERRUPTION
from competition.studio import __main__ as command
from competition.studio.body import KINDS
from competition.studio.camera import VIEWS, Camera, camera_of_shoot, turn
from competition.studio.car import build
from competition.studio.data_set import Job, Order, make
from competition.studio.paint import Paint
from competition.studio.render import develop, render
from competition.studio.room import Room, empty, room_of_shoot

SIZE = (120, 80)
ORDER = Order(cars=2, test_cars=1, seed=5, width=SIZE[0], height=SIZE[1])


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "img,rle_mask"
    return [(line.split(",")[0], line.split(",")[1]) for line in lines[1:]]


def shoot(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.random.Generator, Camera, Room]:
    rng = np.random.default_rng(seed)
    camera = camera_of_shoot(rng, *size)
    return rng, camera, room_of_shoot(rng, camera)


def covered(mask: np.ndarray, camera: Camera, points: np.ndarray, view: int) -> np.ndarray:
    """The mask's values at points (..., 3) in the car's axes."""
    pixels, _ = camera.project(turn(points.reshape(-1, 3), view))
    column, row = np.clip(np.round(pixels).astype(int), 0, np.array(mask.shape[::-1]) - 1).T
    return mask[row, column]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio") / "data"
    make(folder, ORDER, workers=1)
    return folder


def test_the_layout_is_that_of_kaggle(data: Path) -> None:
    tables = {"metadata.csv", "sample_submission.csv", "solution.csv", "train_masks.csv"}
    assert {path.name for path in data.iterdir()} == {"train", "train_masks", "test", "studio.json", *tables}
    train = sorted(path.stem for path in (data / "train").iterdir())
    assert len(train) == ORDER.cars * VIEWS
    assert all(len(stem) == 15 and int(stem[:12], 16) >= 0 and 1 <= int(stem[13:]) <= 16 for stem in train)
    assert sorted(path.name for path in (data / "train_masks").iterdir()) == [f"{stem}_mask.gif" for stem in train]
    assert [name for name, _ in rows(data / "train_masks.csv")] == [f"{stem}.jpg" for stem in train]
    test = sorted(path.name for path in (data / "test").iterdir())
    assert len(test) == ORDER.test_cars * VIEWS
    assert rows(data / "sample_submission.csv") == [(name, "1 1") for name in test]
    assert [name for name, _ in rows(data / "solution.csv")] == test
    metadata = (data / "metadata.csv").read_text(encoding="utf-8").splitlines()
    assert metadata[0] == '"id","year","make","model","trim1","trim2"'
    cars = {name[:12] for name in train + test}
    assert [line.split(",")[0].strip('"') for line in metadata[1:]] == sorted(cars)
    assert all(line.count('"') == 12 for line in metadata)


def test_masks_are_palette_gifs_equal_to_the_table(data: Path) -> None:
    codes = dict(rows(data / "train_masks.csv"))
    for path in sorted((data / "train_masks").iterdir()):
        image = Image.open(path)
        assert (image.mode, image.size) == ("P", SIZE)
        assert image.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
        mask = np.array(image)
        assert set(np.unique(mask)) == {0, 1}
        photo = Image.open(data / "train" / path.name.replace("_mask.gif", ".jpg"))
        assert (photo.mode, photo.size) == ("RGB", SIZE)
        assert np.array_equal(rle.decode(codes[path.name.replace("_mask.gif", ".jpg")], SIZE[::-1]), mask)


def test_two_workers_write_the_same_bytes_as_one(data: Path, tmp_path: Path) -> None:
    make(tmp_path / "two", ORDER, workers=2)
    assert digests(tmp_path / "two") == digests(data)


def test_more_cars_leave_the_first_ones_unchanged(data: Path, tmp_path: Path) -> None:
    """The smaller order also replaces what an unfinished order left behind."""
    leftover = tmp_path / "data.part" / "train" / "old_01.jpg"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    (tmp_path / "data.part" / "studio.json").write_text(json.dumps({"cars": 7}))
    make(tmp_path / "data", replace(ORDER, cars=1, test_cars=0), workers=1)
    fewer, more = digests(tmp_path / "data"), digests(data)
    images = [name for name in fewer if name.endswith((".jpg", ".gif"))]
    assert len(images) == 2 * VIEWS
    assert all(more[name] == fewer[name] for name in images)


def test_another_seed_gives_other_cars() -> None:
    names = [
        {Job(Order(3, 0, seed), split, k).name for split in ("train", "test") for k in range(3)} for seed in (5, 6)
    ]
    assert len(names[0] | names[1]) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_car_has_the_size_of_real_ones_and_fits_the_frame(kind: str) -> None:
    for seed in range(2):
        rng, camera, room = shoot(seed)
        car = build(kind, rng, detail=0.1)
        for view in (1, 3, 5, 9, 12):
            _, mask = render(car, room, camera, view, rng)
            assert 0.09 <= mask.mean() <= 0.41
            ys, xs = np.nonzero(mask)
            assert 0.35 < xs.mean() / SIZE[0] < 0.65
            assert ys.min() > 0
            assert ys.max() < SIZE[1] - 1
            count, _ = cv2.connectedComponents(mask, connectivity=8)
            assert count == 2  # background and one car


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_covers_the_car_and_nothing_else(kind: str) -> None:
    """Compared with the empty room, the photo differs everywhere in the mask, and outside it only by the shadow."""
    rng, camera, room = shoot(2, (480, 320))
    car = replace(build(kind, rng, detail=0.5), paint=Paint("black", (9, 9, 11), 0.0))
    for view in (2, 5, 9):
        photo, mask = render(car, room, camera, view, np.random.default_rng(0))
        bare = develop(empty(room, camera, view), room, camera, np.random.default_rng(0))
        change = photo.astype(int) - bare.astype(int)
        row = np.arange(320)[:, None]
        far = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0  # the lens mixes two pixels at the edge
        assert change[far].max() <= 2
        assert np.abs(change[far & (row < camera.horizon)]).max() <= 2
        inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) == 1
        assert (np.abs(change[inside]).max(axis=1) > 6).mean() > 0.9
        # The last pixel inside the mask is car, and the next one is not: with a mask that is one pixel larger, the
        # share would be near 0. It is 0.9 or more for all kinds with seeds 1 to 4. It depends on the car, because
        # black paint reflects the bright wall at a grazing angle: the sedan of seed 11 has 0.79 in view 5.
        rim = (mask == 1) & ~inside
        assert (np.abs(change[rim]).max(axis=1) > 20).mean() > 0.85
        next_to = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 1) & (mask == 0) & (row < camera.horizon + 60)
        assert (np.abs(change[next_to]).max(axis=1) > 20).mean() < 0.1
        assert change[far & (row > camera.horizon + 60)].min() < -20


def test_the_mask_covers_the_skin_and_the_wheels_and_not_the_floor() -> None:
    rng, camera, room = shoot(3)
    car = build("sedan", rng, detail=0.2)
    corners = np.array([(x, y, 0.0) for x in (-3.2, 3.2) for y in (-1.6, 1.6)], np.float32)
    for view in range(1, VIEWS + 1):
        _, mask = render(car, room, camera, view, rng)
        for points in (car.hull_skin.points, car.cabin_skin.points, car.wheels):
            # Wheel arches are cut out of the skin, so a few of its points show the floor.
            assert covered(mask, camera, points, view).mean() > 0.97
        near = corners[camera.project(turn(corners, view))[1] < camera.distance]
        assert not covered(mask, camera, near, view).any()


def test_view_1_is_the_front_and_5_looks_left() -> None:
    nose = np.array([2.4, 0, 0.5], np.float32)
    _, camera, _ = shoot(0)
    depth = [float(camera.project(turn(nose, view))[1]) for view in range(1, 17)]
    column = [float(camera.project(turn(nose, view))[0][0]) for view in range(1, 17)]
    assert (int(np.argmin(depth)), int(np.argmax(depth))) == (0, 8)
    assert (int(np.argmin(column)), int(np.argmax(column))) in {(4, 12), (3, 13)}


def test_an_antenna_is_in_the_mask() -> None:
    """A rod stands above the roof, one or a few pixels wide."""
    found = 0
    for seed in range(8):
        rng, camera, room = shoot(seed, (480, 320))
        car = build("hatchback", rng, detail=0.2)
        if len(car.parts.antenna) == 2:
            _, mask = render(car, room, camera, 5, rng)
            tip = camera.project(turn(car.parts.antenna[1].points[1], 5))[0]
            rod = mask[int(tip[1]) : int(tip[1]) + 4]
            assert 1 <= rod.sum(axis=1).max() <= 6
            found += 1
    assert found > 1


def test_resuming_after_a_kill_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    arguments = ["--data", str(target), "--cars", "2", "--test-cars", "1", "--seed", "5", "--size", "120x80"]
    line = [sys.executable, "-m", "competition.studio", *arguments, "--workers", "1"]
    process = subprocess.Popen(line, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
    finished = tmp_path / "data.part" / ".finished"
    for _ in range(2000):
        if finished.exists() and any(path.suffix == ".json" for path in finished.iterdir()):
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    first = sorted(path for path in finished.iterdir() if path.suffix == ".json")
    assert 1 <= len(first) < 3
    done = {path.stem for path in first}
    images = list((tmp_path / "data.part").glob("t*/*"))
    kept = {path.name: path.stat().st_mtime_ns for path in images if path.name[:12] in done}
    assert kept
    for path in images:
        if path.name[:12] not in done:  # truncated by the kill
            path.write_bytes(path.read_bytes()[:100])
    command.main([*arguments, "--workers", "1"])
    assert not (tmp_path / "data.part").exists()
    assert digests(target) == digests(data)
    assert {path.name: path.stat().st_mtime_ns for path in target.glob("t*/*") if path.name in kept} == kept


@pytest.mark.parametrize("working", [False, True], ids=["while workers start", "while they work"])
def test_ctrl_c_ends_the_workers_without_a_message(tmp_path: Path, working: bool) -> None:
    """The terminal signals the whole group, also workers that are being imported."""
    arguments = ["--data", str(tmp_path / "data"), "--size", "1918x1280", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "competition.studio", *arguments],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    part = tmp_path / "data.part"
    begun = "train/*" if working else ".finished"
    for _ in range(4000):
        if any(part.glob(begun)):
            break
        time.sleep(0.005)
    time.sleep(0 if working else 0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, f"\n{INTERRUPTION}\n")
    assert part.is_dir()


def test_an_existing_folder_stays_unchanged(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    make(data, ORDER, workers=1)
    assert "already there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    other, part = tmp_path / "mine", tmp_path / "new.part"
    for folder in (other, part):
        folder.mkdir()
        (folder / "thesis.txt").write_text("text")
    for target, checked in ((other, other), (data, data), (tmp_path / "new", part)):
        files = digests(checked)
        with pytest.raises(Failure, match="exists and was"):
            make(target, replace(ORDER, seed=99), workers=1)
        assert digests(checked) == files


def test_a_wrong_size_is_a_usage_error() -> None:
    for size in ("240", "1918x", "20x20", "axb"):
        with pytest.raises(SystemExit) as end:
            command.main(["--size", size])
        assert end.value.code == 2
