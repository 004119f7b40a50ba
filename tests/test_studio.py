"""The studio: its format, its determinism, its masks, and going on after a kill."""

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
from competition.studio import __main__ as command
from competition.studio.body import KINDS
from competition.studio.camera import VIEWS, Camera, camera_of_shoot, turn
from competition.studio.car import build
from competition.studio.data_set import Order, make
from competition.studio.paint import Paint
from competition.studio.render import develop, render
from competition.studio.room import Room, empty, room_of_shoot

SIZE = (240, 160)
ORDER = Order(cars=3, test_cars=1, seed=5, width=SIZE[0], height=SIZE[1])


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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio") / "data"
    make(folder, ORDER, workers=1)
    return folder


def test_layout_is_kaggles(data: Path) -> None:
    assert sorted(path.name for path in data.iterdir()) == [
        "metadata.csv",
        "sample_submission.csv",
        "solution.csv",
        "studio.json",
        "test",
        "train",
        "train_masks",
        "train_masks.csv",
    ]
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


def test_masks_are_palette_gifs_and_the_table_says_the_same(data: Path) -> None:
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


def test_same_bytes_with_workers_and_other_bytes_with_another_seed(data: Path, tmp_path: Path) -> None:
    make(tmp_path / "two", ORDER, workers=2)
    assert digests(tmp_path / "two") == digests(data)
    make(tmp_path / "other", Order(1, 0, ORDER.seed + 1, *SIZE), workers=1)
    assert not set(digests(tmp_path / "other").values()) & {
        digest for name, digest in digests(data).items() if name.startswith("train/")
    }


def test_more_cars_leave_the_first_ones_as_they_were(data: Path, tmp_path: Path) -> None:
    make(tmp_path / "fewer", Order(1, 0, ORDER.seed, *SIZE), workers=1)
    fewer, more = digests(tmp_path / "fewer"), digests(data)
    assert all(more[name] == digest for name, digest in fewer.items() if name.endswith((".jpg", ".gif")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_car_covers_what_real_ones_do_and_stands_in_the_frame(kind: str) -> None:
    for seed in range(3):
        rng, camera, room = shoot(seed)
        car = build(kind, rng, detail=0.3)
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
def test_the_mask_is_the_car_and_nothing_else(kind: str) -> None:
    """Without the car the picture differs everywhere in the mask, and outside of it is only darker: shadow."""
    rng, camera, room = shoot(11, (480, 320))
    car = replace(build(kind, rng, detail=0.5), paint=Paint("black", (9, 9, 11), 0.0))
    for view in (2, 5, 9):
        picture, mask = render(car, room, camera, view, np.random.default_rng(0))
        bare = develop(empty(room, camera, view), room, camera, np.random.default_rng(0))
        change = picture.astype(int) - bare.astype(int)
        far = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0  # the lens mixes two pixels at the edge
        assert change[far].max() <= 2
        high = np.arange(320)[:, None] < camera.horizon
        assert np.abs(change[far & high]).max() <= 2
        inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) == 1
        assert (np.abs(change[inside]).max(axis=1) > 6).mean() > 0.9
        # The last pixel inside is car, the first one outside (above the shadow) is not.
        rim = (mask == 1) & ~inside
        assert (np.abs(change[rim]).max(axis=1) > 20).mean() > 0.8
        next_to = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 1) & (mask == 0)
        next_to &= np.arange(320)[:, None] < camera.horizon + 60
        assert (np.abs(change[next_to]).max(axis=1) > 20).mean() < 0.1
        shadow = far & (np.arange(320)[:, None] > camera.horizon + 60)
        assert change[shadow].min() < -20


def test_the_outline_is_that_of_the_body_on_its_wheels() -> None:
    """Points of the skin land in the mask; points beside the car do not."""
    rng, camera, room = shoot(3, (480, 320))
    car = build("sedan", rng, detail=0.5)
    for view in range(1, VIEWS + 1):
        _, mask = render(car, room, camera, view, rng)
        for points, expected in ((car.hull_skin, 1), (car.cabin_skin, 1), (car.wheels, 1)):
            pixels, _ = camera.project(turn(points.reshape(-1, 3), view))
            column, row = np.clip(np.round(pixels).astype(int), 0, [479, 319]).T
            # Wheel arches are cut out of the skin, so a few of its points show the floor.
            assert (mask[row, column] == expected).mean() > 0.97
        beside = np.array([(x, y, 0.0) for x in (-3.2, 3.2) for y in (-1.6, 1.6)], np.float32)
        pixels, _ = camera.project(turn(beside, view))
        column, row = np.clip(np.round(pixels).astype(int), 0, [479, 319]).T
        near = camera.project(turn(beside, view))[1] < camera.distance
        assert not mask[row[near], column[near]].any()


def test_view_1_is_the_front_and_5_looks_left() -> None:
    nose = np.array([2.4, 0, 0.5], np.float32)
    _, camera, _ = shoot(0)
    depth = [float(camera.project(turn(nose, view))[1]) for view in range(1, 17)]
    column = [float(camera.project(turn(nose, view))[0][0]) for view in range(1, 17)]
    assert (int(np.argmin(depth)), int(np.argmax(depth))) == (0, 8)
    assert (int(np.argmin(column)), int(np.argmax(column))) in {(4, 12), (3, 13)}


def test_thin_parts_are_in_the_mask() -> None:
    """An antenna stands in the mask, above the roof, a pixel or a few wide."""
    found = 0
    for seed in range(8):
        rng, camera, room = shoot(seed, (480, 320))
        car = build("hatchback", rng, detail=0.5)
        if len(car.parts.antenna) != 2:
            continue
        _, mask = render(car, room, camera, 5, rng)
        tip = camera.project(turn(car.parts.antenna[1].points[1], 5))[0]
        rise = mask[int(tip[1]) : int(tip[1]) + 4]
        assert 1 <= rise.sum(axis=1).max() <= 6
        found += 1
    assert found > 1


def test_going_on_after_a_kill_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    arguments = ["--data", str(target), "--cars", "3", "--test-cars", "1", "--seed", "5", "--size", "240x160"]
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
    assert 1 <= len(first) < 4
    done = {path.stem for path in first}
    images = list((tmp_path / "data.part").glob("t*/*"))
    kept = {path.name: path.stat().st_mtime_ns for path in images if path.name[:12] in done}
    assert kept
    for path in images:
        if path.name[:12] not in done:  # a write cut short
            path.write_bytes(path.read_bytes()[:100])
    command.main([*arguments, "--workers", "1"])
    assert not (tmp_path / "data.part").exists()
    assert digests(target) == digests(data)
    assert {path.name: path.stat().st_mtime_ns for path in target.glob("t*/*") if path.name in kept} == kept


def test_the_same_order_again_says_so_and_changes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    make(data, ORDER, workers=1)
    assert "already there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_a_foreign_folder_is_refused_and_untouched(data: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for folder in (foreign, data):
        before = digests(folder)
        with pytest.raises(Failure, match="exists and"):
            make(folder, Order(1, 0, 99, *SIZE), workers=1)
        assert digests(folder) == before
        assert not folder.with_name(folder.name + ".part").exists()


def test_a_foreign_part_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    part = tmp_path / "data.part"
    part.mkdir()
    (part / "thesis.txt").write_text("years of work")
    with pytest.raises(Failure, match="in the way"):
        make(tmp_path / "data", ORDER, workers=1)
    assert (part / "thesis.txt").read_text() == "years of work"


def test_leftovers_of_another_order_are_started_anew(tmp_path: Path) -> None:
    part = tmp_path / "data.part"
    (part / "train").mkdir(parents=True)
    (part / "train" / "old_01.jpg").touch()
    (part / "studio.json").write_text(json.dumps({"cars": 7}))
    make(tmp_path / "data", Order(1, 0, 1, *SIZE), workers=1)
    assert len(list((tmp_path / "data" / "train").iterdir())) == VIEWS


def test_torch_is_not_imported() -> None:
    line = "import sys, competition.studio.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], cwd=Path(__file__).parents[1], check=False).returncode == 0


@pytest.mark.parametrize("size", ["240", "1918x", "20x20", "axb"])
def test_a_wrong_size_is_a_usage_error(size: str) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["--size", size])
    assert end.value.code == 2
