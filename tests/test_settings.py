import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_csv_file import edits, mutated

from competition.command import Failure
from competition.settings import strict_yaml
from competition.settings.__main__ import main
from competition.settings.describe import listing, table
from competition.settings.resolve import (
    PRESETS,
    Tree,
    load_preset,
    load_settings,
    load_yaml,
    merge,
    parse_assignments,
    preset_names,
    resolve,
    to_yaml,
)
from competition.settings.schema import Settings, flat

EPOCHS = "spaces separate settings, so write it without: train.epochs=5"
TAGS = "tags (!) are not supported; remove it, or put the value in quotes"


def test_set_beats_file_beats_preset_beats_default() -> None:
    preset = {"train": {"epochs": 2, "lr": 0.2, "batch_size": 2}}
    file = {"train": {"epochs": 3, "lr": 0.3}}
    resolved = resolve(merge(preset, file, parse_assignments(["train.epochs=1", "train.epochs=4"]))).train
    assert (resolved.epochs, resolved.lr, resolved.batch_size) == (4, 0.3, 2)
    assert resolved.weight_decay == Settings().train.weight_decay
    assert preset == {"train": {"epochs": 2, "lr": 0.2, "batch_size": 2}}  # merge copies


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_differs_from_the_defaults_and_survives_yaml(name: str) -> None:
    made = resolve(load_preset(name))
    assert made != Settings()
    assert resolve(yaml.safe_load(to_yaml(made))) == made


def test_preset_names() -> None:
    assert {"demo", "cpu", "overnight", "scratch", "gpu", "fullres"} <= set(preset_names())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=5", "unknown setting train.epoch; did you mean train.epochs?"),
        ("epochs=5", "unknown setting epochs; did you mean train.epochs or first_stage.epochs?"),
        ("precision=bf16", "unknown setting precision; did you mean train.precision or inference.precision?"),
        ("trian.epochs=5", "unknown setting trian; did you mean train?"),
        ("data.zzzzzzzz=5", "unknown setting data.zzzzzzzz; the settings of `data` are hq"),
        ("zzz.y=5", "unknown setting zzz; the sections are seed, data, split, input, augment, network, loss, "),
        ("train.epochs=0", "train.epochs=0 is not allowed: a whole number, at least 1"),
        ("train.epochs=", "train.epochs=None is not allowed: a whole number, at least 1"),
        ("train.batch_size=true", "train.batch_size=True is not allowed: auto or a whole number, at least 1"),
        ("loss.targets=round", "loss.targets='round' is not allowed: one of soft, hard"),
        ("train.workers=yes", "train.workers='yes' is not allowed: a whole number, at least 0, at most 64"),
        ("train.workers=true", "train.workers=True is not allowed: a whole number, at least 0, at most 64"),
        ("network.stem=3", "network.stem=3 is not allowed: one of 1, 2, 4"),
        ("train.lr=nan", "train.lr='nan' is not allowed: a number, above 0, at most 10"),
        ("train.lr=.inf", "train.lr='.inf' is not allowed: a number, above 0, at most 10"),
        ("train.lr=1e999", "train.lr=inf is not allowed: a number, above 0, at most 10"),
        *(
            (f"train.batch_size={text}", f"train.batch_size='{text}' is not allowed: auto or a whole number, at lea")
            for text in ("0x10", "0o17", "0b1", "1:30", "16px", "1,5", "2026-11-24", "016.5.1")
        ),
        ("train.epochs=5,", "train.epochs='5,' is not allowed: a whole number, at least 1; separate settings by spa"),
        ("train.epochs=5,train.lr=1", "train.epochs='5,train.lr=1' is not allowed: a whole number, at least 1; sep"),
        ("train.lr=1e-4s", "train.lr='1e-4s' is not allowed: a number, above 0, at most 10; write numbers like 16"),
        ("train.epochs==5", "train.epochs='=5' is not allowed: a whole number, at least 1; separate settings by spa"),
        ("Train.Epochs=5", "unknown setting Train; did you mean train?"),
        ("train.Epochs=5", "unknown setting train.Epochs; did you mean train.epochs?"),
        ("--train.epochs=5", "unknown setting --train; did you mean train?"),
        (f"train.epochs={'x' * 999}", f"train.epochs='{'x' * 76}... is not allowed: a whole number, at least 1"),
        ("train.ema=1", "train.ema=1 is not allowed: a number, at least 0, below 1"),
        ("input.height=100", "input.height=100 is not allowed: a whole number, at least 32, at most 4096, a mult"),
        ("data.hq=maybe", "data.hq='maybe' is not allowed: true or false"),
        ("network.weights=[1]", "network.weights=['1'] is not allowed: text"),
        ("network={weights: 1}", 'network.weights=1 is not allowed: text; put it in quotes, such as "2"'),
        ("data={pseudo: 016}", 'data.pseudo=16 is not allowed: text; put it in quotes, such as "2"'),
        ("inference.threshold=0", "inference.threshold=0 is not allowed: auto or a number, above 0, below 1"),
        ("inference.member_weights=best", "inference.member_weights='best' is not allowed: one of auto, equal or"),
        ("inference.member_weights=[0, 0]", "inference.member_weights=[0.0, 0.0] gives every run weight 0"),
        ("inference.tta=[]", "inference.tta=[] is not allowed: a list such as [a, b], each one of identity, hflip"),
        ("inference.tta=[identity, up]", "inference.tta='up' is not allowed: a list such as [a, b], each one of"),
        ("network.decoder=[8, 0]", "network.decoder=0 is not allowed: a list such as [a, b], each a whole number"),
        ("train=5", "train=5 is not allowed: it is a section with the settings epochs, batch_size,"),
        ("loss.bce=0", "loss.bce and loss.dice cannot all be 0"),
        ("loss={bce: 0, dice: 1, boundary: 3}", "loss.boundary weights the pixels of loss.bce, which is 0; give"),
        ("loss.boundary_width=40", "loss.boundary_width=40 has no middle pixel; 41 has"),
        ("augment.crop=[64]", "augment.crop=[64] is not allowed: 0 or a list such as [a, b], each a whole number"),
        ("augment.crop=[64, 512]", "augment.crop=[64, 512] is larger than the input of height 256 and width 384"),
        ("train.milestones=[0.5, 2]", "train.milestones=2 is not allowed: a list such as [a, b], each a number, at"),
        ("data.leave_out=1", "data.leave_out='1' is not allowed: a list such as [a, b], each text"),
        ("data={leave_out: [1]}", "data.leave_out=1 is not allowed: a list such as [a, b], each text; put it in quo"),
    ],
)
def test_wrong_setting(assignment: str, message: str) -> None:
    with pytest.raises(Failure) as failure:
        resolve(parse_assignments([assignment]))
    assert str(failure.value).startswith(message)


def test_all_errors_at_once() -> None:
    with pytest.raises(Failure) as failure:
        resolve(parse_assignments(["train.epochs=0", "seed=x", "train.nope=1"]))
    assert all(name in str(failure.value) for name in ("train.epochs=0", "seed='x'", "unknown setting train.nope"))


@pytest.mark.parametrize("tree", [{1: 2}, {True: {}}, {"train": {True: 3}}])
def test_name_that_is_not_text(tree: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="unknown setting"):
        resolve(tree)


@pytest.mark.parametrize("tree", [[1], 5, None, "train.epochs=5"])
def test_settings_that_are_no_sections(tree: Any) -> None:
    """The metadata of weights may hold any JSON."""
    with pytest.raises(Failure, match="settings are sections with names, not "):
        resolve(tree)


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("train.lr=1e-4", "train.lr", 1e-4),
        ("train.batch_size=016", "train.batch_size", 16),
        ("train.batch_size='016'", "train.batch_size", 16),
        ("train.batch_size=1_000", "train.batch_size", 1000),
        ("train.epochs=1e3", "train.epochs", 1000),
        ("train.epochs=+5", "train.epochs", 5),
        ("data.hq=True", "data.hq", True),
        ("data.hq=off", "data.hq", False),
        ("data={pseudo: no}", "data.pseudo", "no"),
        ("data={pseudo: 2026-11-24}", "data.pseudo", "2026-11-24"),
        ("data={leave_out: [0123x, 'null']}", "data.leave_out", ["0123x", "null"]),
        ("data.hq=yes", "data.hq", True),
        ("train.batch_size=auto", "train.batch_size", "auto"),
        ("inference.threshold=0.4", "inference.threshold", 0.4),
        ("inference.member_weights=[1, 0.5]", "inference.member_weights", [1.0, 0.5]),
        ("inference.tta=[identity, rot180]", "inference.tta", ["identity", "rot180"]),
        ("network.decoder=[8,4]", "network.decoder", [8, 4]),
        ("augment.crop=[64, 96]", "augment.crop", [64, 96]),
        ("data.leave_out=[351583208425, 0123, 1e5]", "data.leave_out", ["351583208425", "0123", "1e5"]),
        ("data.pseudo=2", "data.pseudo", "2"),
        ("data.pseudo=1e5", "data.pseudo", "1e5"),
        ("network.init_from=2026-11-24", "network.init_from", "2026-11-24"),
        ("network.weights=/a/b=c.safetensors", "network.weights", "/a/b=c.safetensors"),
        ("input={height: 64, width: 96}", "input.width", 96),
    ],
)
def test_value_of_an_assignment(assignment: str, name: str, value: object) -> None:
    assert flat(resolve(parse_assignments([assignment])))[name] == value


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        (["train.epochs"], "SET takes section.name=value, not 'train.epochs'; for example train.epochs=50"),
        (["=5"], "SET takes section.name=value, not '=5'; for example train.epochs=50"),
        (["train.epochs:5"], "SET takes section.name=value, not 'train.epochs:5'; did you mean train.epochs=5?"),
        (["train.lr=1", "5"], "SET takes section.name=value, not '5'; for example train.epochs=50"),
        (["train.lr=1", "train.epochs", "=", "5"], f"SET takes section.name=value, not 'train.epochs'; {EPOCHS}"),
        (["train.epochs", "=5"], f"SET takes section.name=value, not 'train.epochs'; {EPOCHS}"),
        (["train.epochs=", "5"], f"SET takes section.name=value, not '5'; {EPOCHS}"),
        (
            ["augment.crop=[64,", "64]", "train.lr=1"],
            "the value in 'augment.crop=[64,' is not YAML: expected the node content, but "
            "found its end; spaces separate settings, so write it without: augment.crop=[64,64]",
        ),
        (
            ["data.leave_out=[my", "car,", "x]"],
            "the value in 'data.leave_out=[my' is not YAML: expected ',' or ']', but got "
            "its end; spaces separate settings; a value with spaces belongs in a YAML file: SETTINGS=more.yaml",
        ),
        (
            ["input={height:", "64}"],
            "the value in 'input={height:' is not YAML: expected the node content, but found "
            "its end; spaces separate settings, so name each one: train.epochs=50 train.batch_size=16",
        ),
        (
            ["train.epochs=["],
            "the value in 'train.epochs=[' is not YAML: expected the node content, but found "
            "its end; for example train.epochs=50",
        ),
        (["data.hq=!!bool maybe"], f"the value in 'data.hq=!!bool maybe' is not YAML: {TAGS}; for example train"),
        (["train.epochs=1", "train.epochs.x=1"], "'train.epochs.x=1' and an earlier assignment give a section and a"),
        (["train={lr: 1}", "train=5"], "'train=5' and an earlier assignment give a section and a value; remove one"),
    ],
)
def test_malformed_assignments(assignments: list[str], reason: str) -> None:
    with pytest.raises(Failure) as failure:
        parse_assignments(assignments)
    assert str(failure.value).startswith(reason)


def test_assignments_to_one_section_are_merged() -> None:
    for order in (1, -1):
        tree = parse_assignments(["train.lr=0.5", "train={epochs: 2}"][::order])
        assert tree == {"train": {"lr": 0.5, "epochs": 2}}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpuu", "did you mean gpu?"),
        ("zzz", "the presets are cpu, demo"),
        ("", "no preset ''"),
        ("/etc", "no preset"),
    ],
)
def test_unknown_preset(name: str, hint: str) -> None:
    with pytest.raises(Failure, match=re.escape(hint)):
        load_preset(name)


def test_preset_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("train: {epochs: 7}")
    monkeypatch.chdir(tmp_path)
    assert load_preset("mine.yaml") == load_preset(str(tmp_path / "mine.yaml")) == {"train": {"epochs": 7}}
    packaged = Path(__file__).parent.parent / "competition" / "settings" / "presets" / "cpu.yaml"
    assert load_preset(str(packaged)) == load_preset("cpu")
    with pytest.raises(Failure, match=r"cannot read no\.yaml: no such file"):
        load_preset("no.yaml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [", " line 1: expected the node content, but found its end"),
        (b"- 1", " must contain settings by section, such as `train: {epochs: 20}`"),
        (b"train.epochs=5\ntrain.lr=1", " must contain settings by section, such as `train: {epochs: 20}`"),
        (b"\xff\xfe\x00", " is not UTF-8 text; save it as UTF-8"),
        ("# Größe".encode("latin-1"), " is not UTF-8 text; save it as UTF-8"),
        (b"train:\n  epochs: 5\n  lr: 1\n  epochs: 6\n", " line 4: epochs is given twice; remove one of them"),
        (b"train:\n  epochs: 5\ntrain.epochs: 6\n", " gives train.epochs twice; remove one of them"),
        (b"train.epochs: 5\ntrain: 6\n", " gives train twice; remove one of them"),
        (
            b"train:\n\tepochs: 5",
            " line 2: found character '\\t' that cannot start any token; YAML is indented with spaces, not tabs",
        ),
        (b"#" * 600_000, " is larger than 500 kB, too large for settings; name another file"),
    ],
)
def test_bad_and_empty_yaml_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(Failure) as failure:
        load_yaml(path)
    assert str(failure.value) == f"{path}{reason}"
    path.write_text("# nothing\n")
    assert load_yaml(path) == {}
    path.write_bytes(b"\xef\xbb\xbftrain.epochs: 016\r\ntrain:\r\n  lr: 1e-4\r\n")
    assert load_yaml(path) == {"train": {"epochs": 16, "lr": 1e-4}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1e5",
        "016",
        "08",
        "1:30",
        "0x10",
        "+.5",
        "5.",
        "no",
        "~",
        "=",
        "<<",
        "!a",
        "null",
        "2026-11-24",
        "# a",
        "ä: 'b' \"c\"",
        " x ",
        "\u2028",
        "[1]",
    ],
)
def test_settings_survive_yaml(text: str) -> None:
    made = resolve({"train": {"lr": 1e-12}, "inference": {"threshold": 0.1 + 0.2}, "network": {"weights": text}})
    assert resolve(yaml.safe_load(to_yaml(made))) == resolve(strict_yaml.parse(to_yaml(made))) == made


def test_the_settings_of_a_run_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("train: {epoch: 5}")
    with pytest.raises(Failure, match=rf"^{path}: unknown setting train.epoch; .*; use the version of this project"):
        load_settings(path)


def test_table_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(Settings()).splitlines()
    for name, default in flat(Settings()).items():
        row = next(line for line in lines if line.startswith(f"| `{name}` |"))
        _, _, shown, allowed, meaning, _ = row.split("|")
        assert shown.strip() == f"`{default}`"
        assert allowed.strip()
        assert meaning.strip() not in ("", "None")
    main(["--markdown", "--preset", "cpu"])
    assert "| `train.epochs` | `1` | a whole number, at least 1 | passes over" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cpu", None])
def test_listing_is_valid_input_of_set(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--preset", name] if name else [])
    printed = capsys.readouterr().out
    values = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
    assert resolve(parse_assignments(values)) == resolve(load_preset(name) if name else {})
    assert ("\ntrain.epochs=1    (default 20)\n    passes over" in printed) == (name == "cpu")
    assert ("(default" in printed) == (name == "cpu")


def test_listing_is_wrapped() -> None:
    text = listing(Settings(), 60)
    assert max(map(len, text.splitlines())) <= 60
    words = " ".join(text.split())
    assert "training [a whole number, at least 0, at most 2147483647] data.hq=false read" in words
    assert "None [" not in words


def settings_or_failure(make: Callable[[], Tree]) -> Settings | None:
    """The settings, which survive their file; or None, and the error is a Failure of moderate length."""
    try:
        made = resolve(make())
    except Failure as failure:
        assert len(str(failure)) < 2000
        return None
    assert resolve(strict_yaml.parse(to_yaml(made))) == made
    return made


NAMES = [*flat(Settings()), "train", "train.", ".", "train.epochs.x", "x"]
number_like = st.text("0123456789_+-.eEx:~!&*'\"[]{}#, \n", max_size=6)
values = (
    number_like | st.text(max_size=6) | st.sampled_from(["true", "yes", "None", "auto", "[1, 2]", "{a: 1}", "016"])
)
steady = hypothesis.settings(derandomize=True, deadline=None)


@hypothesis.settings(steady, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["=", "==", ":", ""]), values).map("".join), max_size=4
    )
)
def test_any_assignments_give_settings_or_one_failure(words: list[str]) -> None:
    settings_or_failure(lambda: parse_assignments(words))


@hypothesis.settings(steady, max_examples=150)
@given(number_like)
def test_a_number_is_read_in_base_ten_or_rejected(text: str) -> None:
    made = settings_or_failure(lambda: parse_assignments([f"train.epochs={text}"]))
    if made:
        plain = re.sub(r"\s#.*", "", text).strip().strip("'\"").strip()
        assert made.train.epochs == Decimal(plain)


@hypothesis.settings(steady, max_examples=80)
@given(st.sampled_from(preset_names()), edits)
def test_any_file_gives_settings_or_one_failure(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[str, int, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(mutated((PRESETS / f"{name}.yaml").read_bytes(), changes))
    settings_or_failure(lambda: load_yaml(path))
