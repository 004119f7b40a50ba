"""Settings in words: what is wrong with one, what it may be, and the list of all of them."""

import difflib
import textwrap
from collections.abc import Mapping
from datetime import date
from typing import Any, cast

from pydantic import ValidationError

from competition.settings.schema import Section, Settings, flat


def complaints(error: ValidationError) -> list[str]:
    """One part of a line for each thing that is wrong, each setting once."""
    complaints: dict[str, str] = {}
    for detail in error.errors():
        location = [str(part) for part in detail["loc"]]
        name = _dotted(location)
        if name in complaints:
            continue
        if detail["type"] in ("extra_forbidden", "invalid_key"):
            complaints[name] = f"unknown setting {name}; {_hint(name)}"
        elif detail["type"] == "value_error":
            complaints[name] = detail["msg"].removeprefix("Value error, ")
        else:
            # Only in a file of settings; what YAML made of it (83 of 0123) cannot be undone.
            number = detail["type"] == "string_type" and isinstance(detail["input"], int | float | date)
            quotes = '; put it in quotes, such as "2"' if number else ""
            complaints[name] = f"{name}={detail['input']!r} is not allowed: {_allowed(name)}{quotes}"
    return list(complaints.values())


def is_text(name: str) -> bool:
    """Whether a setting is text or a list of texts."""
    if name not in flat(Settings()):
        return False
    *sections, leaf = name.split(".")
    return _section(sections).model_fields[leaf].annotation in (str, list[str])


def listing(settings: Settings, width: int) -> str:
    """Every setting as ``SET`` takes it, and below it its meaning and what it may be, in lines of a width."""
    defaults, lines = flat(Settings()), []
    for name, value in flat(settings).items():
        differs = f"    (by default {_written(defaults[name])})" if value != defaults[name] else ""
        lines.append(f"{name}={_written(value)}{differs}")
        words = f"{_meaning(name)} [{_allowed(name)}]"
        lines += textwrap.wrap(words, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def table(settings: Settings) -> str:
    """Every setting with its value, what it may be and what it means, as a Markdown table."""
    rows = ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, value in flat(settings).items():
        rows.append(f"| `{name}` | `{value}` | {_allowed(name)} | {_meaning(name)} |")
    return "\n".join(rows)


def _hint(name: str) -> str:
    """What may have been meant by an unknown name."""
    names, sections = list(flat(Settings())), list(Settings.model_fields)
    near = [known for known in names if known.split(".")[-1] == name]
    near = near or difflib.get_close_matches(name, [*names, *sections], n=1)
    if near:
        return f"did you mean {' or '.join(near)}?"
    section, dot, _ = name.partition(".")
    if dot and section in sections:
        return f"`{section}` has {', '.join(_section([section]).model_fields)}"
    return f"there are {', '.join(sections)}"


def _dotted(location: list[str]) -> str:
    """The setting's dotted name; pydantic's location may go on into a list or a union."""
    names = flat(Settings())
    for end in range(len(location), 0, -1):
        if ".".join(location[:end]) in names:
            return ".".join(location[:end])
    return ".".join(location)


def _section(names: list[str]) -> type[Section]:
    """The schema of a section."""
    model: Any = Settings
    for name in names:
        model = model.model_fields[name].annotation
    return cast(type[Section], model)


def _allowed(name: str) -> str:
    """What a setting may be, in words."""
    *sections, leaf = name.split(".")
    schema = _section(sections).model_json_schema()["properties"][leaf]
    if "$ref" in schema:
        return f"it is a section with the settings {', '.join(_section([leaf]).model_fields)}"
    return _words(schema)


def _words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: ``a whole number, at least 1``."""
    if "anyOf" in schema:
        return " or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"a list such as [a, b], each {_words(schema['items'])}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    limits = [f"{words} {schema[key]}" for key, words in bounds.items() if key in schema]
    return ", ".join([kinds[schema["type"]], *limits])


def _meaning(name: str) -> str:
    *sections, leaf = name.split(".")
    return _section(sections).model_fields[leaf].description or ""


def _written(value: object) -> str:
    """A value as ``SET`` takes it: a list without spaces, which would end it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
