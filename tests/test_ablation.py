"""The ablation in miniature: no training sees the test fold, and a restart does only what is missing."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import ablation
from benchmarks.ablation import Pace, files_of, main, weights_for
from benchmarks.comparison import Row, paired, print_markdown, print_table, spread
from benchmarks.variants import QUESTIONS, VARIANTS
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.records import read_history
from competition.settings.resolve import load_preset, merge, parse_assignments, resolve
from competition.settings.schema import Settings, flat
from folds import train
from folds.networks.build import make_network
from folds.samples import Samples
from folds.split import read_folds

SMALL = [
    "split.folds=5",
    "input={height: 32, width: 64}",
    "network={name: unet, width: 8, max_width: 256, depth: 2, stem: 1}",
    "loss.dice=0",
    "train={batch_size: 2, lr: 0.02, ema: 0.8, workers: 0, cache: false, validate_every: 1}",
    "inference={batch_size: 2, engine: torch}",  # torch starts faster
]
# The variant "bce" has the loss of these settings, so its networks must equal the preset's.
OPTIONS = ["--preset", "demo", "--set", *SMALL, "--repeats", "1", "--ensemble", "2", "--minutes", "0.002"]
PACES = {64: 100.0, 576: 10.0}  # images per second by the width of the input; no test depends on a clock
TRAINED = ["bce", "smaller", "no-ema"]
ROWS = ["preset", "no TTA", "ensemble of 2", *TRAINED]
PRESET = load_preset("cpu")  # the variants are changes to it

Done = tuple["Ablation", dict[str, Any]]


class Ablation:
    """An ablation of tiny cars in its own folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = data
        self.runs = folder / "runs"

    def run(self, variants: list[str], *options: str) -> dict[str, Any]:
        arguments = ["--data", str(self.data), "--run", str(self.runs), *OPTIONS, *options, "--variants", *variants]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(ablation, "trained_per_second", lambda trainer, _: PACES[trainer.settings.input.width])
            main(arguments)
        result: dict[str, Any] = json.loads((self.folder / "benchmarks/results/ablation.json").read_text())
        return result


@pytest.fixture(scope="module")
def learned() -> list[set[str]]:
    """The cars of each trainer, for training and for validation."""
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, learned: list[set[str]]) -> Done:
    """A finished ablation and its result."""
    torch.set_num_threads(1)
    made = Ablation(tmp_path_factory.mktemp("ablation"), tiny_data)
    with pytest.MonkeyPatch.context() as patch:
        original = train.Trainer

        def watched(network: Any, samples: Samples, validation: Any, **rest: Any) -> Any:
            learned.append({photo.car for photo in [*samples.photos, *validation.photos]})
            return original(network, samples, validation, **rest)

        patch.setattr(train, "Trainer", watched)
        return made, made.run(TRAINED)


def test_every_variant_has_a_row(done: Done) -> None:
    made, result = done
    rows = {row["variant"]: row for row in result["rows"]}
    assert list(rows) == ROWS
    assert not result["not_run"]
    for name, row in rows.items():
        assert all(0 <= dice <= 1 for dice in row["dice"])
        assert row["Dice"] == pytest.approx(sum(row["dice"]) / len(row["dice"]))
        assert name == "preset" or all(math.isfinite(gain) for gain in [*row["gains"], row["gain"]])
    assert [row["epochs"] for row in result["rows"]] == [2, 2, 2, 2, 1, 2]  # 0.12 s, 6 images in an epoch
    assert rows["smaller"]["input"] == "576 x 384"
    assert rows["no-ema"]["dice"] != rows["preset"]["dice"]
    assert rows["bce"]["gains"] == [0]
    assert rows["no TTA"]["gains"] == paired(rows["no TTA"]["dice"], rows["preset"]["dice"])
    each = [json.loads((made.runs / "preset" / f"fold{fold}" / "unseen.json").read_text()) for fold in range(2)]
    mean = sum(kept["dice"]["tta"] for kept in each) / 2
    assert rows["ensemble of 2"]["gains"] == [pytest.approx(rows["ensemble of 2"]["dice"][0] - mean)]


def test_no_training_sees_the_test_fold(done: Done, learned: list[set[str]], tiny_data: Path) -> None:
    made, result = done
    fold_of = read_folds(made.runs / "preset" / "folds.csv")
    unseen = {photo.car for photo in DataFolder(tiny_data).train if fold_of[photo.img] == 4}
    assert (result["unseen_cars"], result["unseen_images"]) == (len(unseen), 2 * len(unseen)) == (1, 2)
    assert len(learned) == 5 + 2  # the networks, and the trainers whose pace was measured
    assert all(len(cars) == 4 and not cars & unseen for cars in learned)


def test_networks_are_validated_once_and_paces_shared(done: Done) -> None:
    made, _ = done
    for path in made.runs.glob("*/fold*/history.jsonl"):
        epochs = read_history(path)
        assert [epoch.dice is None for epoch in epochs] == [True] * (len(epochs) - 1) + [False]
    assert {path.parent.name for path in made.runs.glob("*/pace.json")} == {"preset", "smaller"}


def test_a_restart_does_only_what_is_missing(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    made, result = done
    calls: list[str] = []

    def noted(name: str, original: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **rest: (calls.append(name), original(*args, **rest))[1]

    for name in ("measured_pace", "train_fold", "score_photos"):
        monkeypatch.setattr(ablation, name, noted(name, getattr(ablation, name)))
    assert made.run(TRAINED)["rows"] == result["rows"]
    assert calls == []
    shutil.rmtree(made.runs / "no-ema" / "fold0")
    (made.runs / "bce" / "fold0" / "unseen.json").unlink()
    again = made.run(TRAINED)["rows"]
    assert [row["dice"] for row in again] == [row["dice"] for row in result["rows"]]
    assert calls == ["score_photos", "score_photos", "train_fold", "score_photos", "score_photos"]
    without_tta = made.run([], "--set", *SMALL, "inference.tta=[identity]")["rows"]
    assert without_tta[0]["dice"] == result["rows"][1]["dice"] != result["rows"][0]["dice"]


def test_other_minutes_are_an_error(done: Done) -> None:
    with pytest.raises(Failure, match=r"run preset was made with other settings: train\.epochs is .*new RUN"):
        done[0].run([], "--minutes", "1")


def test_a_variant_that_cannot_be_trained_is_reported(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = done
    timm_unet = "name: timm_unet, encoder: test_resnet, weights: none, stem: 4, decoder: [16, 8, 8]"
    network = f"network={{{timm_unet}, width: 32, max_width: 256, depth: 4}}"
    small = [each for each in SMALL if not each.startswith("network")]
    wrong = "00000000beef_01.jpg"
    over = ["--set", *small, network, f"data.leave_out=[{wrong}]"]
    missing = ["--weights", f"tf_efficientnet_lite0={made.folder / 'none.pth'}"]
    other = ["--run", str(made.folder / "other"), *over, *missing, "--markdown", "--epochs", "1", "--ensemble", "0"]
    result = made.run(["lite0", "bce"], *other)
    assert [row["variant"] for row in result["rows"]] == ["preset", "no TTA", "bce"]
    assert "there is no file" in result["not_run"]["lite0"]
    assert not (made.folder / "other" / "lite0" / "settings.yaml").exists()
    left_out = yaml.safe_load((made.folder / "other" / "bce" / "settings.yaml").read_text())["data"]["leave_out"]
    assert wrong in left_out
    assert len(left_out) == 2
    screen = capsys.readouterr().out
    assert "lite0 is not run: there is no file" in screen
    assert "| `loss.dice=0` |" in screen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "5"], "use 1 to 4"),
        (["--ensemble", "5"], "use 1 to 4"),
        (["--repeats", "0"], "use 1 to 4"),
        (["--minutes", "0"], "--minutes=0 is not above 0"),
        (["--set", "train.batch_size=auto"], "train.batch_size=auto may choose a different number for each variant"),
        (["--set", "first_stage.epochs=1"], "use first_stage.epochs=0"),
        (["--set", "network.init_from=first"], "network.init_from names a run whose folds have learned"),
        (["--set", "data.pseudo=first"], "data.pseudo names a run whose folds have learned"),
        (["--weights", "resnet34=x.pth"], "--weights takes ENCODER=FILE, of mobilenetv2_100 or tf_eff.*'resnet34=x"),
        (["--weights", "x.pth"], "--weights takes ENCODER=FILE"),
    ],
)
def test_meaningless_options_are_errors(options: list[str], message: str, tiny_data: Path, tmp_path: Path) -> None:
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
    assert spread([0.5]) is None
    with pytest.raises(ValueError, match="zip"):
        paired([1], [1, 2])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("preset", [], "384 x 256", 8, 30.04, [0.5, 0.75], []),
        Row("bce", ["loss.dice=0"], "384 x 256", 8, 30, [0.5, 0.5], [0.0, -0.25]),
        Row("together", [], "384 x 256", 12, 30, [0.75], [0.125]),
    ]
    print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "  variant       input  epochs  images/s     Dice   spread      gain  std of the gain  change",
        "  preset    384 x 256       8      30.0  0.62500  0.17678",
        "  bce       384 x 256       8      30.0  0.50000  0.00000  -0.12500          0.17678  loss.dice=0",
        "  together  384 x 256      12      30.0  0.75000           +0.12500",
    ]
    print_markdown(rows)
    assert capsys.readouterr().out.splitlines()[3] == (
        "| bce | 384 x 256 | 8 | 30.0 | 0.50000 | 0.00000 | -0.12500 | 0.17678 | `loss.dice=0` |"
    )


def test_every_variant_changes_the_network_or_the_training() -> None:
    assert len(VARIANTS) == sum(map(len, QUESTIONS.values()))
    assert ablation.PRESET not in VARIANTS
    preset = resolve(PRESET)
    for changes in VARIANTS.values():
        assert {change.partition("=")[0] for change in changes} <= flat(Settings()).keys()
        settings = resolve(merge(PRESET, parse_assignments(changes)))
        assert settings != preset
        assert settings.inference == preset.inference
        assert (settings.seed, settings.split, settings.data) == (preset.seed, preset.split, preset.data)
        if settings.network != preset.network:
            make_network(settings, pretrained=False)
    make_network(resolve(merge(PRESET, parse_assignments(VARIANTS["unet"]))))


LITE0 = "network.encoder=tf_efficientnet_lite0"
SCRATCH = ["network.weights=none", "network.freeze=0"]


@pytest.mark.parametrize(
    ("before", "changes", "files", "weights"),
    [
        ([], [], {}, []),
        ([], ["loss.dice=0"], {"tf_efficientnet_lite0": "b"}, []),
        ([], [], {"mobilenetv2_100": "a"}, []),  # the studio weights fit
        (["network.weights=hub"], [], {"mobilenetv2_100": "a"}, ["network.weights=a"]),
        ([], ["network.weights=hub"], {"mobilenetv2_100": "a"}, ["network.weights=a"]),
        ([], ["network.norm=group"], {}, ["network.weights=hub"]),
        ([], ["network.weights=none"], {"mobilenetv2_100": "a"}, []),
        ([], [LITE0], {"mobilenetv2_100": "a"}, ["network.weights=hub"]),
        ([], [LITE0], {"tf_efficientnet_lite0": "b"}, ["network.weights=b"]),
        (SCRATCH, [LITE0], {}, []),  # a preset from scratch is compared with an encoder from scratch
        (SCRATCH, [LITE0], {"tf_efficientnet_lite0": "b"}, ["network.weights=b"]),
    ],
)
def test_an_encoder_has_its_own_weights(
    before: list[str], changes: list[str], files: dict[str, str], weights: list[str]
) -> None:
    settings = resolve(merge(PRESET, parse_assignments([*before, *changes])))
    assert weights_for(changes, settings, files) == weights


def test_files_of_weights_by_encoder() -> None:
    named = ["tf_efficientnet_lite0=/x=y.pth", "mobilenetv2_100=b"]
    assert files_of(named, resolve(PRESET)) == {"tf_efficientnet_lite0": "/x=y.pth", "mobilenetv2_100": "b"}
