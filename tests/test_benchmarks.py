"""Every benchmark in miniature: it prints its table, records its result, and compares equal things."""

import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from torch import nn
from torch._dynamo.testing import CompileCounter

from benchmarks import (
    compiled_training,
    foreground,
    host_path,
    loader,
    openmp,
    rle,
    scale,
    score,
    studio_weights,
    usual,
)
from benchmarks.material import settings_of
from benchmarks.measure import Target, in_turns, median_ratio
from benchmarks.watch import watch
from competition import rle as codec
from competition.command import Failure
from competition.data_folder import DataFolder
from folds.checkpoint import load_weights
from folds.studio_weights import read_card
from folds.train import main as train
from inference.evaluate import evaluate

NOTHING = ["--images", "4", "--repeats", "1"]
MINIATURES = {
    "rle": (["--masks", "3", "--repeats", "1"], {"milliseconds", "spans", "peer"}),
    "mask_edges": (["--masks", "1"], {"masks", "smooth", "classes"}),
    "foreground": (["--cars", "2", "--repeats", "1"], {"errors", "seconds", "edges"}),
    "host_path": ([*NOTHING, "--preset", "demo"], {"images_per_second", "times_as_fast", "stages", "reading"}),
    "loader": (
        ["--presets", "demo", "--images", "20", "--epochs", "1", "--steps", "1"],
        {"presets"},
    ),
    "checkpoint": (["--preset", "demo", "--repeats", "1"], {"bytes", "stall_ms", "written_s"}),
    "engines": ([*NOTHING, "--presets", "demo"], {"presets"}),
    "predict": ([*NOTHING, "--presets", "demo", "--folds", "2"], {"cases", "peers", "against"}),
    "scale": (["--images", "260", "--kills", "0"], {"seconds", "peak_mb", "memory_mb", "kills", "identical"}),
    "score": (["--training", "40", "--images", "200"], {"score", "validate"}),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_program_prints_a_table_and_records_it(name, tiny_data, tmp_path, monkeypatch, capsys):
    options, keys = MINIATURES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "SMALL", [*scale.SMALL, "train.epochs=1", "train.validate_every=1"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the commands that it runs
    importlib.import_module(f"benchmarks.{name}").main(["--data", str(tiny_data), *options])
    screen = capsys.readouterr().out
    recorded = json.loads((tmp_path / "benchmarks" / "results" / f"{name}.json").read_text())
    assert keys <= recorded.keys()
    assert {"processor", "cores", "git", "packages"} <= recorded["machine"].keys()
    assert recorded["targets"]
    assert all(target["what"] in screen for target in recorded["targets"])
    if name == "foreground":
        assert "3 pixels" in recorded["edges"], "of the studio weights"
    if name == "scale":
        assert recorded["images"] == 260
    if name == "predict":
        assert recorded["cases"][0]["host_memory_gb"] > 0.1
        for row in (
            "hours for 100,064 images, all folds and TTA",
            "networks' share of the time",
            "peak of the host's",
        ):
            assert row in screen
    if name == "loader":
        assert "training, loader and step" in screen
    if name == "score":
        assert recorded["score"]["rows"] == 40
        assert 0.5 < recorded["score"]["dice"] < 1


RECIPE = """
seed: 3
encoder: random numbers
stages:
  - {photos: 4, border: 0, settings: {input: {height: 32, width: 64}, train: {epochs: 2}}}
  - {photos: 4, border: 0.5, settings: {input: {height: 64, width: 96}, train: {epochs: 1}}}
settings:
  network: {width: 4, depth: 1}
  train: {batch_size: 2, workers: 0}
"""


def test_studio_weights_are_trained_as_their_recipe_says(tiny_data, tmp_path):
    recipe, log = tmp_path / "recipe.yaml", tmp_path / "learning.csv"
    recipe.write_text(RECIPE)
    places = ["--run", str(tmp_path / "run"), "--recipe", str(recipe), "--out", str(tmp_path)]
    studio_weights.main(["--data", str(tiny_data), *places])
    head, *rows = (line.split(",") for line in log.read_text().splitlines())
    assert head[:5] == ["stage", "epoch", "width", "height", "photos_seen"]
    assert [row[:5] for row in rows] == [
        ["1", "1", "64", "32", "4"],
        ["1", "2", "64", "32", "8"],
        ["2", "1", "96", "64", "12"],
    ]
    judges = studio_weights.judges_of(DataFolder(tiny_data))
    assert judges.choosing
    assert not {photo.car for photo in judges.choosing} & {photo.car for photo in judges.scored}
    _, settings, provenance = load_weights(tmp_path / "weights.safetensors")
    assert (settings.input.width, provenance.learned) == (96, ())
    assert read_card(tmp_path / "weights.safetensors").trained_on.startswith("12 photos of as many generated cars")
    recipe.write_text(RECIPE.replace("seed: 3", "seed: 4"))
    with pytest.raises(Failure, match="begun with another recipe"):
        studio_weights.main(["--data", str(tiny_data), *places])


def test_generated_cars_have_known_edges(trained):
    """Composed over its own studio, a car is the photo; a network's soft edge is measured against its coverage."""
    scene = foreground.generated(3, (192, 128))
    assert scene.alpha.shape == (128, 192)
    soft = (scene.alpha > 0) & (scene.alpha < 1)
    assert 100 < soft.sum() < 0.3 * soft.size
    assert 0.05 < scene.alpha.mean() < 0.5
    of_masks = foreground.opacity_errors([scene])
    assert list(of_masks) == ["1920 x 1280", "960 x 640", "768 x 512", "192 x 128"]
    assert all(0 < errors["edges"] < 0.2 for errors in of_masks.values())
    found = foreground.edge_errors([scene], trained.run.best(0), seed=1)
    assert found.keys() == {*(f"{edge:g} pixels" for edge in foreground.EDGES), "the probabilities"}
    assert all(0 < error < 255 for errors in found.values() for error in errors.values())


def test_openmp_trains_and_prints_a_table(tiny_data, tmp_path, monkeypatch, capsys):
    """The command is run in this process: another one would take seconds to import torch."""
    monkeypatch.chdir(tmp_path)
    given = []

    class Process:
        def __init__(self, command, env, stdout):
            given.append(env)
            assert command[:3] == [sys.executable, "-m", "folds.train"]
            train(command[3:])

        def wait(self):
            return 0

    monkeypatch.setattr(openmp, "subprocess", SimpleNamespace(Popen=Process, DEVNULL=subprocess.DEVNULL))
    assert openmp.train(tiny_data, tmp_path, {"GOMP_SPINCOUNT": "1000"}, processes=1, threads=3) > 0
    assert [(each["GOMP_SPINCOUNT"], each["OMP_NUM_THREADS"]) for each in given] == [("1000", "3")]
    monkeypatch.setattr(Process, "wait", lambda _: 1)
    with pytest.raises(Failure, match="a training failed"):
        openmp.train(tiny_data, tmp_path, {}, processes=1, threads=1)
    monkeypatch.setattr(openmp, "train", lambda *_: 17.0)
    openmp.main(["--data", str(tiny_data), "--threads", "2"])
    assert "2 trainings of 2 threads each" in capsys.readouterr().out


def test_a_compiled_step_is_compared_with_an_eager_one(tiny_data, tmp_path, monkeypatch, capsys):
    """Torch traces the network, and runs what it has traced without compiling it, which would take minutes."""
    monkeypatch.chdir(tmp_path)
    compile_it, counter = nn.Module.compile, CompileCounter()
    monkeypatch.setattr(nn.Module, "compile", lambda module, **given: compile_it(module, backend=counter, **given))
    compiled_training.main(["--data", str(tiny_data), "--presets", "demo", "--steps", "1"])
    assert counter.frame_count == 1
    assert "eager / compiled" in capsys.readouterr().out


def test_the_loader_is_measured_after_its_start(tiny_data, tmp_path):
    """By default each worker loads six batches, and its first one, with the start of the process, does not count."""
    data, train = DataFolder(tiny_data), {"train": {"workers": 1, "batch_size": 2, "cache": False}}
    settings = settings_of("demo", train, {"input": {"height": 32, "width": 64}, "network": {"width": 4, "depth": 1}})
    photos = loader.enough_photos(data, settings)
    trainer = loader.trainer_of(data, photos, settings, tmp_path)
    assert len(trainer.batches) == 6
    trainer.loader.worker_init_fn = lambda _worker: time.sleep(1)
    start = time.perf_counter()
    rate = loader.loaded_per_second(trainer, 1)
    assert rate > 2 * len(photos) / (time.perf_counter() - start)
    assert loader.together_per_second(trainer, 1) > 0


def test_the_second_stage_of_a_preset_is_measured_without_the_first(tiny_data, tmp_path):
    data, tiny = DataFolder(tiny_data), {"input": {"height": 32, "width": 64}, "network": {"width": 4, "depth": 1}}
    _, second = settings_of("demo", tiny, {"first_stage": {"epochs": 1}, "train": {"workers": 0}}).stages
    trainer = loader.trainer_of(data, data.train, second, tmp_path)
    assert loader.trained_per_second(trainer, 1) > 0


def test_make_bench_runs_every_program_and_nothing_else():
    listed = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert set(listed[1].split()) == programs - {"picture", "ablation", "studio_weights", "outline_errors"}


def test_the_usual_encoder_writes_what_ours_writes():
    mask = np.zeros((5, 7), dtype=np.uint8)
    mask[0, 0] = mask[2, 3:] = mask[3, :2] = mask[4, 6] = 1
    assert usual.encode(mask) == codec.encode(mask) == "1 1 18 6 35 1"


def test_encoders_that_disagree_are_refused(monkeypatch):
    mask = np.eye(4, 6, dtype=np.uint8)
    rle.require_agreement(mask, codec.encode(mask), codec.encode(mask), with_peer=False)
    monkeypatch.setattr(usual, "encode", lambda mask: codec.encode(1 - mask))
    with pytest.raises(Failure, match="encoders disagree"):
        rle.require_agreement(mask, codec.encode(mask), codec.encode(mask), with_peer=False)


def test_runs_that_differ_from_the_peers_are_refused():
    pytest.importorskip("pycocotools", reason="pycocotools is in the benchmarks' environment: make bench-setup")
    for mask in (np.eye(4, 6), 1 - np.eye(4, 6), np.ones((2, 3)), np.zeros((2, 3))):
        rle.require_agreement_with_peer(mask.astype(np.uint8), codec.encode(mask))
    with pytest.raises(Failure, match="differ"):
        rle.require_agreement_with_peer(np.eye(4, 6, dtype=np.uint8), codec.encode(np.eye(4, 6)[::-1]))


def test_two_ways_whose_masks_differ_are_refused(tiny_data, tmp_path, monkeypatch):
    data = DataFolder(tiny_data)
    photos, settings = data.train[:4], host_path.settings_of("demo")
    logits = host_path.true_logits(photos, data, host_path.Frame.of(settings.input))
    assert host_path.compare(photos, logits, settings, 1, tmp_path)["agreement"] > host_path.SAME
    monkeypatch.setattr(usual, "mask_of", lambda probabilities, shape: np.ones(shape, dtype=np.uint8))
    with pytest.raises(Failure, match="is only"):
        host_path.compare(photos, logits, settings, 1, tmp_path)


def test_a_padded_photo_is_the_same_however_it_is_decoded(tiny_data):
    data = DataFolder(tiny_data)
    pad = host_path.settings_of("demo", {"input": {"height": 96, "width": 96, "fit": "pad"}})
    found = host_path.reading(data.train[:2], pad, 1)
    assert found["mean absolute difference, levels of 255"] == 0


def test_the_dice_of_a_fold_is_measured_in_both_ways_of_reading(trained):
    dice = host_path.reading_dice(str(trained.run.root), DataFolder(trained.data), 1)
    assert list(dice) == ["Dice of fold 1, decoded reduced", "Dice of fold 1, decoded in full"]
    assert dice["Dice of fold 1, decoded reduced"] == evaluate(trained.run.best(1), trained.data, None, 0.5).dice
    assert 0.5 < dice["Dice of fold 1, decoded in full"] < 1


def test_other_bytes_after_a_kill_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"mask")
    (tmp_path / "b").write_bytes(b"mast")
    assert scale.require_identical(tmp_path / "a", tmp_path / "a")
    with pytest.raises(Failure, match="differs from the one without"):
        scale.require_identical(tmp_path / "a", tmp_path / "b")


def test_a_dice_that_is_not_that_of_the_pixels_is_refused(tiny_data):
    data = DataFolder(tiny_data)
    right = {photo.img: 1.0 for photo in data.train}
    score.require_pixels_agree(data.masks_csv, data, right)
    with pytest.raises(Failure, match="Dice"):
        score.require_pixels_agree(data.masks_csv, data, dict.fromkeys(right, 0.5))


def test_a_shifted_mask_keeps_its_runs_and_stays_in_the_image():
    mask = np.zeros((3, 4), dtype=np.uint8)
    mask[0, 1:3] = mask[2, 2:] = 1
    assert codec.encode(mask) == "2 2 11 2"
    assert score.shifted("2 2 11 2", (3, 4), 1) == "3 2 12 1"
    assert score.shifted("2 2 11 2", (3, 4), 2) == "4 2"


def test_one_core_is_given_back():
    before = host_path.os.sched_getaffinity(0)
    with host_path.one_core():
        assert len(host_path.os.sched_getaffinity(0)) == 1
    assert host_path.os.sched_getaffinity(0) == before


def test_a_watched_command_that_fails_says_why(tmp_path):
    with pytest.raises(Failure, match=r"submissions.validate failed: error: no submission"):
        watch("submissions.validate", "--file", tmp_path / "none.csv")


def test_a_watched_command_is_killed(tmp_path):
    seen = watch("submissions.validate", "--help", kill_after=0)
    assert seen.killed


def test_ways_take_turns():
    order: list[str] = []
    ways = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert {name: len(seconds) for name, seconds in in_turns(ways, 2).items()} == {"a": 2, "b": 2}
    assert order == ["a", "b", "a", "b"]
    assert median_ratio([2, 9, 4], [1, 3, 2]) == 2


@pytest.mark.parametrize(("value", "at_most", "met"), [(5, False, True), (4.9, False, False), (5.1, True, False)])
def test_a_target_knows_its_side(value, at_most, met):
    target = Target("x", value, 5, at_most)
    assert target.met is met
    assert ("NO" in str(target)) is not met


def test_results_are_not_committed():
    assert "/benchmarks/results/" in Path(ROOT / ".gitignore").read_text()
