import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import read_json
from competition.run.folder import RunFolder, run_at
from competition.run.open import add_run_arguments, open_run
from competition.run.records import git_revision, record_run, require_same_data
from competition.settings.resolve import load_preset, load_yaml, resolve
from competition.settings.schema import Settings


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A preset of the test's own: the packaged ones get tuned."""
    path = tmp_path / "preset.yaml"
    path.write_text("network: {width: 24}\ntrain: {epochs: 14}\n")
    return str(path)


def typed(*words: object) -> Namespace:
    parser = ArgumentParser()
    add_run_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_every_set_counts() -> None:
    parser = ArgumentParser()
    add_run_arguments(parser)
    words = ["--set", "seed=2", "train.epochs=4", "--run", "a", "--set", "seed=3"]
    assert parser.parse_args(words).set == ["seed=2", "train.epochs=4", "seed=3"]
    assert parser.parse_args(["--set", "seed=4"]).set == ["seed=4"], "a parse begins anew"
    assert parser.parse_args([]).set == []


def create(data: Path, *words: object) -> tuple[RunFolder, Settings]:
    run, settings, folder = open_run(typed("--data", data, *words), default_preset="demo")
    record_run(run, settings, folder, "cpu")
    return run, settings


def test_where_a_run_is() -> None:
    assert run_at("a").root == Path("runs/a")
    assert run_at("elsewhere/a").root == Path("elsewhere/a")
    assert run_at("/tmp/a").name == "a"


def test_the_paths_of_a_run() -> None:
    run = RunFolder(Path("runs/a"))
    assert run.last(2) == Path("runs/a/fold2/last.pt")
    assert run.best(0) == Path("runs/a/fold0/best.safetensors")
    assert run.history(1) == Path("runs/a/fold1/history.jsonl")
    named = [run.settings, run.environment, run.folds, run.oof, run.oof_scores, run.cv, run.submission, run.report]
    assert [path.name for path in named] == [
        "settings.yaml",
        "environment.json",
        "folds.csv",
        "oof.csv.gz",
        "oof_scores.csv",
        "cv.json",
        "submission.csv.gz",
        "report.html",
    ]


def test_a_new_run_is_made_from_the_default_preset(own_data: Path) -> None:
    run, settings = create(own_data)
    assert settings == resolve(load_yaml(run.settings))
    assert settings == resolve(load_preset("demo"))
    environment = read_json(run.environment)
    assert environment["data"] == str(own_data.resolve())
    assert environment["fingerprint"] == DataFolder(own_data).fingerprint
    assert environment["device"] == "cpu"
    assert environment["packages"]["numpy"]


def test_preset_file_and_set_in_their_order(own_data: Path, mine: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {epochs: 3, batch_size: 3}")
    words = ("--preset", mine, "--settings", tmp_path / "mine.yaml", "--set", "train.epochs=4", "seed=9")
    _, settings = create(own_data, *words)
    assert (settings.train.epochs, settings.train.batch_size, settings.seed) == (4, 3, 9)
    assert settings.network.width == 24  # of the preset


def test_a_run_is_opened_again_without_naming_anything(own_data: Path, mine: str) -> None:
    _, settings = create(own_data, "--preset", mine, "--set", "train.epochs=4")
    for default in ("demo", None):
        run, again, data = open_run(typed(), default)
        assert again == settings
        assert data.root == own_data.resolve()
        require_same_data(run, data)


def test_the_same_settings_may_be_named_again(own_data: Path, mine: str) -> None:
    words = ("--preset", mine, "--set", "train.epochs=4")
    _, settings = create(own_data, *words)
    assert open_run(typed(*words), "demo")[1] == settings
    assert open_run(typed("--set", "train.epochs=4"), "demo")[1] == settings


def test_auto_agrees_with_the_number_that_a_run_holds(own_data: Path, mine: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {batch_size: auto}")
    _, settings = create(own_data, "--preset", mine, "--set", "train.batch_size=16")
    for words in (["--set", "train.batch_size=auto"], ["--preset", mine, "--settings", "mine.yaml"]):
        assert open_run(typed(*words), "demo")[1] == settings
    with pytest.raises(Failure, match=r"other settings: train.epochs is 14, asked for 5; name"):
        open_run(typed("--set", "train.batch_size=auto", "train.epochs=5"), "demo")
    with pytest.raises(Failure, match=r"other settings: train.batch_size is 16, asked for 8; name"):
        open_run(typed("--set", "train.batch_size=8"), "demo")


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--set", "train.epochs=5", "seed=3"], "seed is 1, asked for 3, train.epochs is 4, asked for 5; name a new"),
        (["--preset", "preset.yaml"], "train.epochs is 4, asked for 14; name a new RUN"),
        (["--set", "network.decoder=[8, 4]"], r"network.decoder is \[128, 64, 32, 24, 16\], asked for \[8, 4\]"),
    ],
)
def test_other_settings_are_refused_with_the_difference(
    own_data: Path, mine: str, words: list[str], difference: str
) -> None:
    run, _ = create(own_data, "--preset", mine, "--set", "train.epochs=4")
    before = run.settings.read_text()
    with pytest.raises(Failure, match=f"run default was made with other settings: {difference}"):
        open_run(typed(*words), "demo")
    assert run.settings.read_text() == before


def test_what_does_not_change_the_training_may_differ(own_data: Path) -> None:
    run, settings = create(own_data)
    before = run.settings.read_text()
    free = ["inference.threshold=0.4", "train.workers=3", "train.cache=false", "train.save_seconds=5"]
    run, asked, data = open_run(typed("--set", *free), "demo")
    assert (asked.inference.threshold, asked.train.workers, asked.train.save_seconds) == (0.4, 3, 5)
    record_run(run, asked, data, "cuda")
    assert run.settings.read_text() == before  # for this call only
    assert read_json(run.environment)["device"] == "cpu"
    assert open_run(typed(), "demo")[1] == settings


def test_empty_settings_are_not_those_of_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    run.settings.write_text("")
    with pytest.raises(Failure, match=r"settings\.yaml is empty; put back what the run was made with"):
        open_run(typed("--run", str(run.root)))


@pytest.mark.parametrize("name", ["mine", "runs/mine", "runs/ablation/bce", "/elsewhere/mine"])
def test_what_a_command_line_calls_a_run_names_it(name: str) -> None:
    assert run_at(run_at(name).called) == run_at(name)
    assert "/" not in run_at("mine").called


def test_a_stage_that_needs_a_run_says_how_to_make_it() -> None:
    with pytest.raises(Failure, match="no run runs/mine; train it first: make train FOLD=0 RUN=mine"):
        open_run(typed("--run", "mine"))


def test_a_run_is_there_once_its_settings_are(own_data: Path, mine: str) -> None:
    """Killed between the two files: the next call makes the run anew."""
    run, _ = create(own_data)
    run.settings.unlink()
    with pytest.raises(Failure, match="no run"):
        open_run(typed("--data", own_data))
    create(own_data, "--preset", mine)
    assert load_yaml(run.settings)["train"]["epochs"] == 14


def test_no_data() -> None:
    with pytest.raises(Failure, match="no data folder data/carvana"):
        open_run(typed(), "demo")


def test_data_that_moved_can_be_named(own_data: Path, tmp_path: Path) -> None:
    create(own_data)
    own_data.rename(tmp_path / "moved")
    with pytest.raises(Failure, match=r"no data folder .*carvana; name one with DATA="):
        open_run(typed(), "demo")
    run, _, data = open_run(typed("--data", tmp_path / "moved"), "demo")
    require_same_data(run, data)


def test_other_data_is_refused(own_data: Path) -> None:
    run, _ = create(own_data)
    next((own_data / "train").iterdir()).unlink()
    with pytest.raises(Failure, match=f"are not those that run default was made from .{own_data}"):
        require_same_data(run, DataFolder(own_data))


def test_hq_is_a_setting_of_the_run(own_data: Path) -> None:
    (own_data / "train").rename(own_data / "train_hq")
    (own_data / "train").mkdir()
    create(own_data, "--set", "data.hq=true")
    assert open_run(typed(), "demo")[2].hq


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is not JSON"), ("[1]", "holds no JSON object"), ("", "is not JSON"), (None, "no such file")],
)
def test_bad_json(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Failure, match=f"{path}.*{reason}"):
        read_json(path)


def test_settings_of_another_version_are_refused_by_file_and_name(own_data: Path) -> None:
    run, _ = create(own_data)
    run.settings.write_text(run.settings.read_text() + "retired: 1\n")
    with pytest.raises(Failure, match=f"{run.settings}: unknown setting retired"):
        open_run(typed(), "demo")


def test_an_environment_without_a_fingerprint_is_refused(own_data: Path) -> None:
    run, _ = create(own_data)
    run.environment.write_text(json.dumps({"data": str(own_data)}))
    with pytest.raises(Failure, match=r"environment\.json does not say"):
        require_same_data(run, DataFolder(own_data))


def test_the_revision_does_not_depend_on_the_folder_one_is_in() -> None:
    revision = git_revision()
    assert revision is None or len(revision.rstrip("+")) >= 7
