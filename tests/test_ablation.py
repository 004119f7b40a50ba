"""The ablation in miniature: nothing that is scored has been trained on, and what is done is not done again."""

import json
import math
import shutil
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import ablation
from benchmarks.ablation import Pace, files_of, main, weights_for
from benchmarks.comparison import Row, paired, print_markdown, print_table, spread
from benchmarks.loader import trained_per_second
from benchmarks.variants import QUESTIONS, VARIANTS
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.settings.resolve import load_preset, merge, parse_assignments, resolve
from competition.settings.schema import Settings, flat
from folds import train
from folds.networks.build import make_network
from folds.samples import Samples
from folds.split import read_folds
from folds.trainer import Trainer

SMALL = [
    "input={height: 32, width: 64}",
    "network={name: unet, width: 8, depth: 2, stem: 1}",
    "train={batch_size: 2, lr: 0.02, ema: 0.8, workers: 0, cache: false, validate_every: 1}",
    "inference.batch_size=2",
]
# "bce" is the demo's own loss, and must give the demo's own networks.
OPTIONS = ["--preset", "demo", "--set", *SMALL, "--repeats", "2", "--ensemble", "3", "--minutes", "0.006"]
PACES = {64: 100.0, 384: 10.0}  # images a second by the width of the input, so that no test depends on a clock
TRAINED = ["bce", "smaller", "no-ema"]
ROWS = ["preset", "no TTA", "ensemble of 3", *TRAINED]
PRESET = load_preset("cpu")  # what the variants are described over


def measured(trainer: Trainer, _steps: int) -> float:
    """A step of the trainer, and what it is said to take."""
    assert trained_per_second(trainer, 1) > 0
    return PACES[trainer.settings.input.width]


class Ablation:
    """An ablation of tiny cars in a folder of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = data

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run(self, variants: list[str], *options: str) -> dict[str, Any]:
        arguments = ["--data", str(self.data), "--run", str(self.runs), *OPTIONS, *options, "--variants", *variants]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(ablation, "trained_per_second", measured)
            main(arguments)
        result: dict[str, Any] = json.loads((self.folder / "benchmarks/results/ablation.json").read_text())
        return result


@pytest.fixture(scope="module")
def learned() -> list[set[str]]:
    """The cars that each trainer learned from or was validated on, in the first run of ``done``."""
    return []


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, learned: list[set[str]]
) -> tuple[Ablation, dict[str, Any]]:
    """A finished ablation and its result. What a test removes, the next run of it makes again."""
    torch.set_num_threads(1)
    made = Ablation(tmp_path_factory.mktemp("ablation"), tiny_data)
    with pytest.MonkeyPatch.context() as patch:
        original = train.Trainer

        def watched(network: Any, samples: Samples, validation: Any, **rest: Any) -> Any:
            learned.append({photo.car for photo in [*samples.photos, *validation.photos]})
            return original(network, samples, validation, **rest)

        patch.setattr(train, "Trainer", watched)
        return made, made.run(TRAINED)


def test_every_variant_has_a_row_of_finite_numbers(done: tuple[Ablation, dict[str, Any]]) -> None:
    _, result = done
    rows = {row["variant"]: row for row in result["rows"]}
    assert list(rows) == ROWS
    assert not result["not_run"]
    for name, row in rows.items():
        assert len(row["dice"]) == (1 if name == "ensemble of 3" else 2)
        assert all(0 <= dice <= 1 for dice in row["dice"])
        assert row["Dice"] == pytest.approx(sum(row["dice"]) / len(row["dice"]))
        assert row["images_per_second"] > 0
        if name != "preset":
            assert all(math.isfinite(gain) for gain in [*row["gains"], row["gain"]])
    assert [row["epochs"] for row in result["rows"]] == [6, 6, 6, 6, 1, 6]  # 0.36 s of 6 images an epoch
    assert rows["smaller"]["input"] == "384 x 256"
    assert rows["no-ema"]["dice"] != rows["preset"]["dice"]
    assert rows["bce"]["gains"] == [0, 0]
    assert rows["no TTA"]["gains"] == paired(rows["no TTA"]["dice"], rows["preset"]["dice"])


def test_the_unseen_cars_are_in_no_training_and_validate_none(
    done: tuple[Ablation, dict[str, Any]], learned: list[set[str]], tiny_data: Path
) -> None:
    made, result = done
    fold_of = read_folds(made.runs / "preset" / "folds.csv")
    unseen = {photo.car for photo in DataFolder(tiny_data).train if fold_of[photo.img] == 4}
    assert (result["unseen_cars"], result["unseen_images"]) == (len(unseen), 2 * len(unseen)) == (1, 2)
    assert len(learned) == 9 + 2  # networks, and the trainers whose pace was measured
    for cars in learned:
        assert len(cars) == 4
        assert not cars & unseen


def test_the_ensemble_is_compared_with_the_mean_of_its_networks(done: tuple[Ablation, dict[str, Any]]) -> None:
    made, result = done
    row = next(row for row in result["rows"] if row["variant"] == "ensemble of 3")
    kept = [json.loads((made.runs / "preset" / f"fold{fold}" / "unseen.json").read_text()) for fold in range(3)]
    mean = sum(each["dice"]["tta"] for each in kept) / 3
    assert row["gains"] == [pytest.approx(row["dice"][0] - mean)]


def test_networks_are_validated_once_at_the_end(done: tuple[Ablation, dict[str, Any]]) -> None:
    made, _ = done
    for history in made.runs.glob("*/fold*/history.jsonl"):
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        assert [line["dice"] is None for line in lines] == [True] * (len(lines) - 1) + [False]


def test_what_costs_the_same_is_measured_once(done: tuple[Ablation, dict[str, Any]]) -> None:
    made, _ = done
    assert {path.parent.name for path in made.runs.glob("*/pace.json")} == {"preset", "smaller"}


def test_a_pace_is_that_of_what_is_asked(tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs folder, asked for another batch before a run there has settings."""
    measured = iter([Pace(6, 100), Pace(6, 50)])
    monkeypatch.setattr(ablation, "measured_pace", lambda _settings, _protocol: next(measured))

    def pace(*more: str) -> Pace:
        arguments = ArgumentParser()
        ablation.add_arguments(arguments)
        asked = ["--data", str(tiny_data), "--run", str(tmp_path), "--preset", "demo", "--set", *SMALL, *more]
        protocol = ablation.protocol_of(arguments.parse_args(asked))
        return ablation.pace_of("preset", ablation.resolved("demo", protocol.over), protocol)

    assert pace() == pace("train.lr=0.1") == Pace(6, 100)
    assert pace("train.batch_size=3") == Pace(6, 50)


def test_a_restart_does_only_what_is_missing(
    done: tuple[Ablation, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, result = done
    calls: list[str] = []

    def noted(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **rest: object) -> object:
            calls.append(name)
            return original(*args, **rest)

        return call

    for name in ("measured_pace", "train_fold", "score_photos"):
        monkeypatch.setattr(ablation, name, noted(name, getattr(ablation, name)))
    assert made.run(TRAINED)["rows"] == result["rows"]
    assert calls == []
    shutil.rmtree(made.runs / "no-ema" / "fold1")
    (made.runs / "no-ema" / "fold0" / "unseen.json").unlink()
    again = made.run(TRAINED)["rows"]
    assert [row["dice"] for row in again] == [row["dice"] for row in result["rows"]]
    assert calls == [*["score_photos"] * 2, "train_fold", *["score_photos"] * 2]


def test_other_tta_are_scored_again(done: tuple[Ablation, dict[str, Any]]) -> None:
    made, result = done
    again = made.run([], "--set", *SMALL, "inference.tta=[identity]")["rows"]
    assert again[0]["dice"] == result["rows"][1]["dice"] != result["rows"][0]["dice"]


def test_another_time_for_the_same_runs_is_refused(done: tuple[Ablation, dict[str, Any]]) -> None:
    with pytest.raises(Failure, match=r"run preset was made with other settings: train\.epochs is .*name a new RUN"):
        done[0].run([], "--minutes", "1")


def test_a_batch_size_of_its_own_for_each_variant_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    options = ["--data", str(tiny_data), "--run", str(tmp_path / "runs"), "--set", "train.batch_size=auto"]
    with pytest.raises(Failure, match=r"^train\.batch_size=auto may be another number for each variant"):
        main(options)
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_trained_is_reported_with_its_reason(
    done: tuple[Ablation, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = done
    network = "network={name: timm_unet, width: 32, weights: none, stem: 2, decoder: [24, 16, 8, 8]}"
    lite0 = "network.encoder=tf_efficientnet_lite0"
    missing = f"{lite0.partition('=')[2]}={made.folder / 'none.pth'}"
    small = [each for each in SMALL if not each.startswith("network")]
    wrong = "00000000beef_01.jpg"
    over = ["--set", *small, network, f"data.leave_out=[{wrong}]", "--weights", missing]
    other = ["--run", str(made.folder / "other"), *over, "--markdown"]
    result = made.run(["lite0", "bce"], *other, "--epochs", "1", "--repeats", "1", "--ensemble", "0")
    assert [row["variant"] for row in result["rows"]] == ["preset", "no TTA", "bce"]
    assert [row["spread"] for row in result["rows"]] == [None] * 3
    assert "no file of weights" in result["not_run"]["lite0"]
    assert not (made.folder / "other" / "lite0" / "settings.yaml").exists()
    left_out = yaml.safe_load((made.folder / "other" / "bce" / "settings.yaml").read_text())["data"]["leave_out"]
    assert wrong in left_out
    assert len(left_out) == 2
    said = capsys.readouterr().out
    assert "lite0 is not run: no file of weights" in said
    assert "| `loss.dice=0` |" in said


def test_no_network_is_begun_after_the_deadline(done: tuple[Ablation, dict[str, Any]]) -> None:
    made, _ = done
    result = made.run(["bce", "plain", "larger"], "--minutes-in-all", "0")
    assert [row["variant"] for row in result["rows"]] == [*ROWS[:3], "bce"]
    assert all("--minutes-in-all=0 are over" in result["not_run"][name] for name in ("plain", "larger"))
    assert not (made.runs / "plain" / "settings.yaml").exists()


def test_the_deadline_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    ablation.Deadline(None).require()
    deadline = ablation.Deadline(2)
    deadline.require()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 121)
    with pytest.raises(Failure, match="--minutes-in-all=2 are over"):
        deadline.require()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "5"], "ask for 1 to 4"),
        (["--ensemble", "5"], "ask for 1 to 4"),
        (["--repeats", "0"], "ask for 1 to 4"),
        (["--minutes", "0"], "--minutes=0 leaves no time to train a network; MINUTES=3 is"),
        (["--set", "network.init_from=first"], "network.init_from names a run whose folds have learned"),
        (["--set", "data.pseudo=first"], "data.pseudo names a run whose folds have learned"),
        (["--weights", "resnet34=x.pth"], "--weights takes ENCODER=FILE, of mobilenetv2_100 or tf_eff.*'resnet34=x"),
        (["--weights", "x.pth"], "--weights takes ENCODER=FILE"),
    ],
)
def test_what_would_mean_nothing_is_refused(
    options: list[str], message: str, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=message):
        main(["--data", str(tiny_data), "--run", str(tmp_path / "runs"), *options])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("images", "pace", "minutes", "epochs"),
    [(600, 20, 3, 6), (640, 20, 3, 6), (500, 20, 3, 7), (5000, 1, 3, 1), (1, 1, 0.1, 6)],
)
def test_epochs_fit_into_the_time(images: int, pace: float, minutes: float, epochs: int) -> None:
    assert Pace(images, pace).epochs(minutes) == epochs


def test_gains_are_paired_by_fold() -> None:
    gains = paired([0.75, 0.5, 1.0], [0.5, 0.5, 0.5])
    assert gains == [0.25, 0, 0.5]
    assert spread(gains) == 0.25
    assert spread([0.5, 1.0]) == pytest.approx(math.sqrt(0.125))
    assert spread([0.5]) is None
    with pytest.raises(ValueError, match="zip"):
        paired([1], [1, 2])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("preset", [], "384 x 256", 8, 30.04, [0.5, 0.75], []),
        Row("bce", ["loss.dice=0", "loss.bce=2"], "384 x 256", 8, 30, [0.5, 0.5], [0.0, -0.25]),
        Row("together", [], "384 x 256", 12, 30, [0.75], [0.125]),
    ]
    print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "  variant       input  epochs  images/s     Dice   spread      gain  its spread  changed",
        "  preset    384 x 256       8      30.0  0.62500  0.17678",
        "  bce       384 x 256       8      30.0  0.50000  0.00000  -0.12500     0.17678  loss.dice=0 loss.bce=2",
        "  together  384 x 256      12      30.0  0.75000           +0.12500",
    ]
    print_markdown(rows)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| preset | 384 x 256 | 8 | 30.0 | 0.62500 | 0.17678 |  |  |  |",
        "| bce | 384 x 256 | 8 | 30.0 | 0.50000 | 0.00000 | -0.12500 | 0.17678 | `loss.dice=0 loss.bce=2` |",
    ]


def test_no_name_stands_for_two_variants() -> None:
    assert len(VARIANTS) == sum(map(len, QUESTIONS.values()))
    assert ablation.PRESET not in VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_another_network_or_training_that_there_is(name: str) -> None:
    known = flat(Settings())
    if absent := [change for change in VARIANTS[name] if change.partition("=")[0] not in known]:
        pytest.skip(f"no setting {absent[0]} yet")
    preset = resolve(PRESET)
    settings = resolve(merge(PRESET, parse_assignments(VARIANTS[name])))
    assert settings != preset
    assert settings.inference == preset.inference
    assert (settings.seed, settings.split, settings.data) == (preset.seed, preset.split, preset.data)
    if settings.network != preset.network:
        make_network(settings, pretrained=False)


def test_the_plain_unet_is_one_that_a_training_accepts() -> None:
    """Over a preset whose encoder is pretrained and frozen."""
    make_network(resolve(merge(PRESET, parse_assignments(VARIANTS["unet"]))))


@pytest.mark.parametrize(
    ("changes", "files", "weights"),
    [
        ([], {}, []),
        (["loss.dice=0"], {"tf_efficientnet_lite0": "b"}, []),
        ([], {"mobilenetv2_100": "a"}, ["network.weights=a"]),
        (["network.weights=none"], {"mobilenetv2_100": "a"}, []),
        (["network.encoder=tf_efficientnet_lite0"], {"mobilenetv2_100": "a"}, ["network.weights=hub"]),
        (["network.encoder=tf_efficientnet_lite0"], {"tf_efficientnet_lite0": "b"}, ["network.weights=b"]),
    ],
)
def test_an_encoder_has_its_own_weights(changes: list[str], files: dict[str, str], weights: list[str]) -> None:
    settings = resolve(merge(PRESET, parse_assignments(changes)))
    assert weights_for(changes, settings, files) == weights


@pytest.mark.parametrize(("files", "weights"), [({}, []), ({"tf_efficientnet_lite0": "b"}, ["network.weights=b"])])
def test_another_encoder_over_a_preset_from_scratch_begins_from_scratch(
    files: dict[str, str], weights: list[str]
) -> None:
    changes = ["network.encoder=tf_efficientnet_lite0"]
    settings = resolve(merge(PRESET, parse_assignments(["network.weights=none", "network.freeze=0", *changes])))
    assert weights_for(changes, settings, files) == weights


def test_files_of_weights_by_encoder() -> None:
    named = ["tf_efficientnet_lite0=/x=y.pth", "mobilenetv2_100=b"]
    assert files_of(named, resolve(PRESET)) == {"tf_efficientnet_lite0": "/x=y.pth", "mobilenetv2_100": "b"}
