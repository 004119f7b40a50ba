"""How settings combine: the schema's defaults < a preset < a file of settings < ``SET="section.name=value"``."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from competition.command import Failure, os_reason
from competition.settings.describe import complaints, is_text
from competition.settings.schema import Settings

PRESETS = Path(__file__).parent / "presets"

Tree = dict[str, Any]


def preset_names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: str) -> Tree:
    """What a preset, by name or as a YAML file of one's own, sets.

    Raises:
        Failure: there is no such preset or file, or it is not a YAML mapping.
    """
    if name.endswith((".yaml", ".yml")):
        return load_yaml(Path(name))
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise Failure(
            f"no preset {name!r}; {hint}there are {', '.join(preset_names())}, or name a .yaml file of your own"
        )
    return load_yaml(PRESETS / f"{name}.yaml")


def load_yaml(path: Path) -> Tree:
    """A YAML file of settings as nested dicts; raises Failure where it is unreadable or not a mapping."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that no calendar has
        raise Failure(f"{path} is not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Failure(f"{path} must hold settings by section, such as `train: {{epochs: 20}}`")
    return tree


def parse_assignments(assignments: Iterable[str]) -> Tree:
    """``["train.epochs=50", "inference.tta=[identity]"]`` as nested dicts; values are read as YAML.

    Text stays as it is written: a run may be called 2, a car 0351583208425, and neither is a number.

    Raises:
        Failure: an assignment is not of the form section.name=value.
    """
    tree: Tree = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise Failure(f"SET takes section.name=value, not {assignment!r}; for example train.epochs=50")
        try:
            parsed = yaml.load(value, Loader=yaml.BaseLoader if is_text(name) else yaml.SafeLoader)
        except (yaml.YAMLError, ValueError) as error:
            raise Failure(f"the value in {assignment!r} is not YAML: {error}") from error
        if isinstance(parsed, str) and not is_text(name):
            parsed = _scientific(parsed)
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise Failure(f"{assignment!r} sets what an earlier assignment already gave a plain value")
        branch[leaf] = parsed
    return tree


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Nested dicts laid over each other; a later one wins."""
    merged: Tree = {}
    for tree in trees:
        for name, value in tree.items():
            below = merged.get(name)
            merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def resolve(tree: Mapping[str, Any]) -> Settings:
    """Check nested dicts against the schema and fill in the defaults.

    Raises:
        Failure: a setting is unknown or its value is not allowed. The line gives its dotted name, and the nearest
            valid name or the values allowed.
    """
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise Failure("; ".join(complaints(error))) from error


def to_yaml(settings: Settings) -> str:
    """Settings as the YAML text of a run's settings.yaml."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)


def _scientific(text: str) -> str | float:
    """YAML 1.1 reads 1e-4 as a string; people mean a number."""
    try:
        return float(text)
    except ValueError:
        return text
