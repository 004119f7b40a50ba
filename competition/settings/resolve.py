"""How settings combine: the schema's defaults < a preset < a file of settings < ``SET="section.name=value"``."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from competition.command import Failure, os_reason
from competition.settings import strict_yaml
from competition.settings.describe import error_messages, is_text, shown
from competition.settings.schema import Settings
from competition.settings.strict_yaml import Malformed

PRESETS = Path(__file__).parent / "presets"
LARGEST = 500_000  # bytes of a file of settings
# An assignment that spaces have divided, such as train.epochs = 5 or augment.crop=[64, 64].
SPACED = re.compile(r"[^\s=]+\s*=\s*(\[[^\]]*\]|[^\s\[{]\S*)")

Tree = dict[str, Any]


def preset_names() -> list[str]:
    """Return what ``PRESET=`` accepts besides a file, in alphabetical order."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: str) -> Tree:
    """Read a preset, by its name or from a YAML file."""
    if name.endswith((".yaml", ".yml")):
        return load_yaml(Path(name))
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise Failure(
            f"no preset {name!r}; {hint}the presets are {', '.join(preset_names())}; a .yaml file is possible too"
        )
    return load_yaml(PRESETS / f"{name}.yaml")


def load_yaml(path: Path) -> Tree:
    """Read a YAML file of settings as nested dicts; ``train.epochs: 5`` is the same as ``train: {epochs: 5}``."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Failure(f"{path} is larger than {LARGEST // 1000} kB, too large for settings; name another file")
        tree = strict_yaml.parse(content.decode("utf-8-sig"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except Malformed as error:
        raise Failure(f"{path} {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Failure(f"{path} must contain settings by section, such as `train: {{epochs: 20}}`")
    nested: Tree = {}
    for name, value in tree.items():
        branch = _branch(name, value)
        doubled = next(_common(nested, branch), None)
        if doubled:
            raise Failure(f"{path} gives {doubled[:60]} twice; remove one of them")
        nested = merge(nested, branch)
    return nested


def load_settings(path: Path) -> Settings:
    """Read the settings.yaml of a run."""
    stored = load_yaml(path)
    if not stored:
        raise Failure(f"{path} is empty; restore it from a copy, or use another RUN")
    try:
        return resolve(stored)
    except Failure as problem:
        raise Failure(
            f"{path}: {problem}; use the version of this project that made the run, or another RUN"
        ) from problem


def parse_assignments(assignments: Iterable[str]) -> Tree:
    """Parse ``["train.epochs=50", "inference.tta=[identity]"]`` into nested dicts; values are YAML.

    Values of text settings are not converted: 2 can be the name of a run, and 0351583208425 a car.
    """
    words = list(assignments)
    tree: Tree = {}
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Failure(f"SET takes section.name=value, not {shown(word)}; {_advice(words, number)}")
        try:
            branch = _branch(name, strict_yaml.parse(value, as_text=is_text(name)))
        except Malformed as error:
            advice = _advice(words, number)
            raise Failure(f"the value in {shown(word)} is not YAML: {error.reason}; {advice}") from error
        if any(_sections_differ(tree, branch)):
            raise Failure(f"{shown(word)} and an earlier assignment give a section and a value; remove one")
        tree = merge(tree, branch)
    return tree


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Merge nested dicts; a later one overrides an earlier one."""
    merged: Tree = {}
    for tree in trees:
        for name, value in tree.items():
            below = merged.get(name)
            merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def resolve(tree: Mapping[str, Any]) -> Settings:
    """Check nested dicts against the schema and fill in the defaults."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise Failure("; ".join(error_messages(error))) from error


def to_yaml(settings: Settings) -> str:
    """Return settings as YAML, the content of settings.yaml."""
    return strict_yaml.dump(settings.model_dump())


def _branch(name: str, value: Any) -> Tree:
    """A dotted name and its value as nested dicts."""
    for part in reversed(name.split(".")):
        value = {part: value}
    branch: Tree = value
    return branch


def _common(first: Tree, second: Tree, prefix: str = "") -> Iterator[str]:
    """The names that have a value in both trees."""
    for name in first.keys() & second.keys():
        below, other = first[name], second[name]
        if isinstance(below, dict) and isinstance(other, dict):
            yield from _common(below, other, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _sections_differ(first: Tree, second: Tree) -> Iterator[bool]:
    """Whether each common name has a section in one tree and a value in the other."""
    for name in first.keys() & second.keys():
        below, other = first[name], second[name]
        if isinstance(below, dict) and isinstance(other, dict):
            yield from _sections_differ(below, other)
        else:
            yield isinstance(below, dict) or isinstance(other, dict)


def _advice(words: Sequence[str], number: int) -> str:
    """How to write an assignment that is wrong at one of the words, which were separated by spaces."""
    colon = re.fullmatch(r"([\w.]+):(\S+)", words[number])
    if colon:
        return f"did you mean {colon[1]}={colon[2]}?"
    start = number - 1 if number and words[number - 1].endswith("=") else number
    spaced = SPACED.match(" ".join(words[start:]))
    if spaced and " " in spaced[0]:
        joined = re.sub(r"\s*([=,\[\]])\s*", r"\1", spaced[0])
        if " " not in joined:
            return f"spaces separate settings, so write it without: {joined[:200]}"
        return "spaces separate settings; a value with spaces belongs in a YAML file: SETTINGS=more.yaml"
    if "={" in words[number]:
        return "spaces separate settings, so name each one: train.epochs=50 train.batch_size=16"
    return "for example train.epochs=50"
