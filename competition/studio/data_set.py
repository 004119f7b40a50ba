"""Writes the data folder car by car. After an interruption, the same command resumes."""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from competition import rle
from competition.command import Failure
from competition.files import write_json
from competition.plural import counted
from competition.studio.camera import FRAME, VIEWS, camera_of_shoot
from competition.studio.car import build
from competition.studio.catalogue import Entry, entry_of
from competition.studio.render import render
from competition.studio.room import Picture, room_of_shoot

SETTINGS = "studio.json"
_FINISHED = ".finished"
_QUALITY = 90


@dataclass(frozen=True)
class Order:
    """What to generate; the same order gives the same bytes."""

    cars: int
    test_cars: int
    seed: int
    width: int = FRAME[0]
    height: int = FRAME[1]


@dataclass(frozen=True)
class Job:
    """One car of an order."""

    order: Order
    split: str
    index: int

    @property
    def name(self) -> str:
        """The car's name: 12 hexadecimal digits."""
        return _digest(self)[:12]


def _digest(job: Job) -> str:
    return hashlib.sha256(f"{job.order.seed}/{job.split}/{job.index}".encode()).hexdigest()


def make(data: Path, order: Order, workers: int) -> None:
    """Write the folder `data`, or resume writing it; does nothing if it is complete."""
    if data.exists() or data.is_symlink():
        _check_same(data, order)
        shutil.rmtree(data / _FINISHED, ignore_errors=True)
        print(f"{data}: already there, {counted(order.cars, 'car')} and {counted(order.test_cars, 'test car')}")
        return
    part = data.with_name(data.name + ".part")
    _prepare(part, order)
    jobs = [Job(order, "train", k) for k in range(order.cars)]
    jobs += [Job(order, "test", k) for k in range(order.test_cars)]
    left = [job for job in jobs if not _record(part, job).exists()]
    if len(left) < len(jobs):
        print(f"{part}: resuming, cars done: {len(jobs) - len(left)} of {len(jobs)}")
    start = time.perf_counter()
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(left), unit="car", disable=not sys.stderr.isatty())
    for done, _ in enumerate(_rendered(part, left, workers), start=len(jobs) - len(left) + 1):
        bar.update()
        if bar.disable and (done % 8 == 0 or done == len(jobs)):
            print(f"{done} of {counted(len(jobs), 'car')} generated", flush=True)
    bar.close()
    _write_tables(part, jobs)
    part.rename(data)
    shutil.rmtree(data / _FINISHED, ignore_errors=True)
    seconds = time.perf_counter() - start
    print(f"{data}: {counted(len(jobs) * VIEWS, 'photo')} of {counted(len(jobs), 'car')}, {seconds:.0f} s")


def _check_same(data: Path, order: Order) -> None:
    advice = "name another folder, or remove it"
    try:
        found = json.loads((data / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Failure(f"{data} exists and was not made by the studio; {advice}") from None
    if found != asdict(order):
        raise Failure(f"{data} exists and was made with other settings ({_brief(found)}); {advice}")


def _brief(settings: Any) -> str:
    if not isinstance(settings, dict):
        return "unreadable"
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _prepare(part: Path, order: Order) -> None:
    """Create the temporary folder. What another order left there is deleted, files of the user are not."""
    try:
        same = json.loads((part / SETTINGS).read_text(encoding="utf-8")) == asdict(order)
    except (OSError, ValueError):
        same = False
    if not same and part.exists():
        if any(part.iterdir()) and not (part / SETTINGS).exists():
            raise Failure(f"{part} exists and was not made by the studio; move or remove it")
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    if not same:
        write_json(part / SETTINGS, asdict(order))
    for folder in ("train", "train_masks", "test", _FINISHED):
        (part / folder).mkdir(exist_ok=True)


def _record(part: Path, job: Job) -> Path:
    """The file that marks a car as finished."""
    return part / _FINISHED / f"{job.name}.json"


def _rendered(part: Path, jobs: list[Job], workers: int) -> Iterator[None]:
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            render_car(part, job)
            yield
        return
    others = active_children()
    # spawn, because OpenCV's threads do not survive a fork.
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _start_worker, (os.getpid(),)) as pool:
        try:
            with ignored_by_children():
                rendered = [pool.submit(render_car, part, job) for job in jobs]
            for car in rendered:
                yield car.result()
        except BrokenProcessPool:
            raise Failure(
                "a worker process was killed, perhaps for lack of memory; run the same command again to resume, "
                "with --workers 1 if it happens again"
            ) from None
        except BaseException:
            for worker in active_children():
                if worker not in others:
                    worker.terminate()  # at any moment: a car without its record is rendered again
            raise


@contextmanager
def ignored_by_children() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C, also during their imports; this process ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(parent: int) -> None:
    """Use one thread, and exit when the parent process is gone: a killed parent cannot stop its workers."""
    cv2.setNumThreads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def render_car(part: Path, job: Job) -> None:
    """Write the photos and masks of one car into the folder `part`, and then its record."""
    seed = [int(_digest(job)[start : start + 8], 16) for start in range(0, 32, 8)]
    rng = np.random.default_rng(seed)
    camera = camera_of_shoot(rng, job.order.width, job.order.height)
    entry = entry_of(rng)
    room = room_of_shoot(rng, camera)
    car = build(entry.kind, rng, detail=min(1.0, camera.scale * 2))
    codes = {}
    for view in range(1, VIEWS + 1):
        picture, mask = render(car, room, camera, view, rng)
        stem = f"{job.name}_{view:02d}"
        _write_picture(part / job.split / f"{stem}.jpg", picture)
        if job.split == "train":
            _write_mask(part / "train_masks" / f"{stem}_mask.gif", mask)
        codes[f"{stem}.jpg"] = rle.encode(mask)
    write_json(_record(part, job), {"entry": asdict(entry), "rle": codes})


def _write_picture(path: Path, picture: Picture) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    fine, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not fine:
        raise Failure(f"cannot encode {path}")
    path.write_bytes(code.tobytes())


def _write_mask(path: Path, mask: Picture) -> None:
    image = Image.fromarray(mask, mode="P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(path, format="GIF", optimize=False)


def _write_tables(part: Path, jobs: list[Job]) -> None:
    codes: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    entries: dict[str, Entry] = {}
    for job in jobs:
        record = json.loads(_record(part, job).read_text(encoding="utf-8"))
        codes[job.split].update(record["rle"])
        entries[job.name] = Entry(**record["entry"])
    _write_masks_table(part / "train_masks.csv", codes["train"])
    _write_masks_table(part / "solution.csv", codes["test"])
    _write_masks_table(part / "sample_submission.csv", dict.fromkeys(codes["test"], "1 1"))
    lines = ['"id","year","make","model","trim1","trim2"']
    for name in sorted(entries):
        row = [name, *entries[name].row]
        lines.append(",".join(f'"{value}"' for value in row))
    (part / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_masks_table(path: Path, codes: dict[str, str]) -> None:
    lines = ["img,rle_mask", *(f"{name},{codes[name]}" for name in sorted(codes))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
