from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from competition.command import Failure
from competition.run.create import record_run
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, open_run, require_same_data
from competition.settings.resolve import load_preset, load_yaml, resolve
from competition.settings.schema import Settings


@pytest.fixture(autouse=True)
def _current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The packaged presets may be tuned, so the tests have their own.
    (tmp_path / "preset.yaml").write_text("network: {width: 24}\ntrain: {epochs: 14}\n")


def parse(*words: object) -> Namespace:
    parser = ArgumentParser()
    add_run_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def create(data: Path, *words: object) -> tuple[RunFolder, Settings]:
    run, settings, folder = open_run(parse("--data", data, *words), default_preset="demo")
    record_run(run, settings, folder, "cpu")
    return run, settings


def test_new_run_has_the_default_preset(own_data: Path) -> None:
    assert create(own_data)[1] == resolve(load_preset("demo"))
    words = ["--set", "seed=2", "train.epochs=4", "--run", "a", "--set", "seed=3"]
    assert parse(*words).set == ["seed=2", "train.epochs=4", "seed=3"], "SET can be repeated"
    parser = ArgumentParser()
    add_run_arguments(parser)
    assert [parser.parse_args(each).set for each in (["--set", "seed=4"], [])] == [["seed=4"], []]


def test_set_overrides_file_overrides_preset(own_data: Path) -> None:
    Path("mine.yaml").write_text("train: {epochs: 3, batch_size: 3}")
    words = ("--preset", "preset.yaml", "--settings", "mine.yaml", "--set", "train.epochs=4", "seed=9")
    _, settings = create(own_data, *words)
    assert (settings.train.epochs, settings.train.batch_size, settings.seed, settings.network.width) == (4, 3, 9, 24)


def test_existing_run_has_its_own_settings_and_data(own_data: Path) -> None:
    words = ("--preset", "preset.yaml", "--set", "train.epochs=4")
    _, settings = create(own_data, *words)
    for again in ((), words, words[2:]):  # naming the same settings again is no error
        run, opened, data = open_run(parse(*again))
        assert opened == settings
        assert data.root == own_data.resolve()
        require_same_data(run, data)


def test_automatic_batch_size_is_the_number_of_the_run(own_data: Path) -> None:
    Path("mine.yaml").write_text("train: {batch_size: auto}")
    _, settings = create(own_data, "--preset", "preset.yaml", "--set", "train.batch_size=16")
    for words in (["--set", "train.batch_size=auto"], ["--preset", "preset.yaml", "--settings", "mine.yaml"]):
        assert open_run(parse(*words), "demo")[1] == settings


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--set", "train.epochs=5", "seed=3"], "seed is 1, asked for 3, train.epochs is 4, asked for 5; name a new"),
        (["--preset", "preset.yaml"], "train.epochs is 4, asked for 14; name a new RUN"),
        (["--set", "network.decoder=[8, 4]"], r"network.decoder is \[128, 64, 32, 24, 16\], asked for \[8, 4\]"),
        (["--set", "train.batch_size=auto", "seed=3"], "seed is 1, asked for 3; name a new RUN"),
    ],
)
def test_other_settings_for_an_existing_run(own_data: Path, words: list[str], difference: str) -> None:
    run, _ = create(own_data, "--preset", "preset.yaml", "--set", "train.epochs=4")
    before = run.settings.read_text()
    with pytest.raises(Failure, match=f"run default was made with other settings: {difference}"):
        open_run(parse(*words), "demo")
    assert run.settings.read_text() == before


def test_changeable_settings_hold_for_one_call(own_data: Path) -> None:
    _, settings = create(own_data)
    changes = ["inference.threshold=0.4", "train.workers=3", "train.cache=false", "train.save_seconds=5"]
    _, changed, _ = open_run(parse("--set", *changes), "demo")
    assert (changed.inference.threshold, changed.train.workers, changed.train.save_seconds) == (0.4, 3, 5)
    assert open_run(parse(), "demo")[1] == settings


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty; restore it"),
        ("retired: 1\n", ": unknown setting retired; .*another RUN"),
        ("- 1", " must contain"),
    ],
)
def test_damaged_settings(own_data: Path, content: str, reason: str) -> None:
    run, _ = create(own_data)
    run.settings.write_text(content)
    with pytest.raises(Failure, match=f"{run.settings} ?{reason}"):
        open_run(parse(), "demo")


def test_run_exists_once_its_settings_do(own_data: Path) -> None:
    """A process killed between the two files leaves an environment.json; the next one creates the run."""
    run, _ = create(own_data)
    run.settings.unlink()
    with pytest.raises(Failure, match="no run runs/default; train it first: make train FOLD=0 RUN=default"):
        open_run(parse("--data", own_data))
    create(own_data, "--preset", "preset.yaml")
    assert load_yaml(run.settings)["train"]["epochs"] == 14


def test_data_folder_that_is_missing_or_has_moved(own_data: Path) -> None:
    with pytest.raises(Failure, match="no data folder data/carvana"):
        open_run(parse(), "demo")
    create(own_data)
    own_data.rename("moved")
    with pytest.raises(Failure, match=r"no data folder .*carvana; name one with DATA="):
        open_run(parse(), "demo")
    run, _, data = open_run(parse("--data", "moved"), "demo")
    require_same_data(run, data)


def test_hq_is_a_setting_of_the_run(own_data: Path) -> None:
    (own_data / "train").rename(own_data / "train_hq")
    (own_data / "train").mkdir()
    create(own_data, "--set", "data.hq=true")
    assert open_run(parse(), "demo")[2].settings.hq
