"""How settings combine: the schema's defaults < a preset < a file of settings < ``SET="section.name=value"``."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from competition.command import Failure, os_reason
from competition.settings.describe import error_messages, is_text
from competition.settings.schema import Settings

PRESETS = Path(__file__).parent / "presets"

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
    """Read a YAML file of settings as nested dicts."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an impossible date
        raise Failure(f"{path} is not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise Failure(f"{path} must contain settings by section, such as `train: {{epochs: 20}}`")
    return tree


def parse_assignments(assignments: Iterable[str]) -> Tree:
    """Parse ``["train.epochs=50", "inference.tta=[identity]"]`` into nested dicts; values are YAML.

    Values of text settings are not converted: 2 can be the name of a run, and 0351583208425 a car.
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
            parsed = _number_or_text(parsed)
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise Failure(
                    f"{assignment!r} needs a section, but an earlier assignment gives it a value; remove one"
                )
        branch[leaf] = parsed
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
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)


def _number_or_text(text: str) -> str | float:
    """Convert numbers such as 1e-4, which YAML 1.1 reads as text."""
    try:
        return float(text)
    except ValueError:
        return text
