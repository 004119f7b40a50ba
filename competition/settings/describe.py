"""Text about settings: error messages, allowed values, and the list of all settings."""

import difflib
import textwrap
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from competition.settings.schema import Section, Settings, flat


def error_messages(error: ValidationError) -> list[str]:
    """Return one message for each setting that is wrong."""
    messages: dict[str, str] = {}
    for detail in error.errors():
        location = [str(part) for part in detail["loc"]]
        name = _dotted(location)
        if name in messages:
            continue
        if detail["type"] in ("extra_forbidden", "invalid_key"):
            messages[name] = f"unknown setting {name[:60]}; {_hint(name)}"
        elif detail["type"] == "value_error":
            messages[name] = detail["msg"].removeprefix("Value error, ")
        elif not location:
            messages[name] = f"settings are sections with names, not {shown(detail['input'])}"
        else:
            allowed, value = _allowed(name), detail["input"]
            messages[name] = f"{name}={shown(value)} is not allowed: {allowed}{_advice(value, allowed)}"
    return list(messages.values())


def shown(value: object) -> str:
    """A value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_text(name: str) -> bool:
    """Return whether a setting is text or a list of texts."""
    if name not in flat(Settings()):
        return False
    *sections, leaf = name.split(".")
    return _section(sections).model_fields[leaf].annotation in (str, list[str])


def listing(settings: Settings, width: int) -> str:
    """Return every setting as ``SET`` takes it, then its meaning and its allowed values, wrapped at ``width``."""
    defaults, lines = flat(Settings()), []
    for name, value in flat(settings).items():
        differs = f"    (default {_format(defaults[name])})" if value != defaults[name] else ""
        lines.append(f"{name}={_format(value)}{differs}")
        explanation = f"{_description(name)} [{_allowed(name)}]"
        lines += textwrap.wrap(explanation, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def table(settings: Settings) -> str:
    """Return a Markdown table of every setting with its value, its allowed values and its meaning."""
    rows = ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, value in flat(settings).items():
        rows.append(f"| `{name}` | `{value}` | {_allowed(name)} | {_description(name)} |")
    return "\n".join(rows)


def _advice(value: object, allowed: str) -> str:
    """What to do about usual mistakes in a value."""
    if isinstance(value, int | float) and allowed.endswith("text"):
        return '; put it in quotes, such as "2"'  # in files only, see parse_assignments
    if isinstance(value, str) and ("=" in value or value.endswith((",", ";"))):
        return "; separate settings by spaces only"
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "number" in allowed:
        return "; write numbers like 16, 0.5 or 1e-4"
    return ""


def _hint(name: str) -> str:
    """Suggest known names for an unknown one."""
    names, sections = list(flat(Settings())), list(Settings.model_fields)
    if name in names:  # a dotted name in a dict that no file has given
        return f"give {name.replace('.', ' and ')} as nested names"
    near = [known for known in names if known.split(".")[-1] == name]
    near = near or difflib.get_close_matches(name, [*names, *sections], n=1)
    if near:
        return f"did you mean {' or '.join(near)}?"
    section, dot, _ = name.partition(".")
    if dot and section in sections:
        return f"the settings of `{section}` are {', '.join(_section([section]).model_fields)}"
    return f"the sections are {', '.join(sections)}"


def _dotted(location: list[str]) -> str:
    """Return the setting's dotted name. Pydantic's location may continue into a list or a union."""
    names = flat(Settings())
    for end in range(len(location), 0, -1):
        if ".".join(location[:end]) in names:
            return ".".join(location[:end])
    return ".".join(location)


def _section(names: list[str]) -> type[Section]:
    """Return the model of a section."""
    model: Any = Settings
    for name in names:
        model = model.model_fields[name].annotation
    return cast(type[Section], model)


def _allowed(name: str) -> str:
    """Describe the allowed values of a setting."""
    *sections, leaf = name.split(".")
    schema = _section(sections).model_json_schema()["properties"][leaf]
    if "$ref" in schema:
        return f"it is a section with the settings {', '.join(_section([leaf]).model_fields)}"
    return _describe(schema)


def _describe(schema: Mapping[str, Any]) -> str:
    """Describe a JSON schema, for example ``a whole number, at least 1``."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"a list such as [a, b], each {_describe(schema['items'])}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    limits = [f"{bound} {schema[key]}" for key, bound in bounds.items() if key in schema]
    return ", ".join([kinds[schema["type"]], *limits])


def _description(name: str) -> str:
    *sections, leaf = name.split(".")
    return _section(sections).model_fields[leaf].description or ""


def _format(value: object) -> str:
    """Format a value as ``SET`` takes it. Lists have no spaces, because spaces separate settings."""
    if isinstance(value, list):
        return f"[{','.join(map(_format, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
