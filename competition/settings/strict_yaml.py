"""YAML without its surprises, for settings: YAML 1.2's core schema, without tags, anchors and doubled names.

PyYAML reads YAML 1.1, where 016 is 14, 1:30 is 90, ``no`` is false and 1e-4 is text. Here numbers have base ten, and
everything that is not clearly a number, true, false or null is text. A name that occurs twice is an error.
"""

import re
from functools import lru_cache
from typing import Any

import yaml

DEEPEST = 8  # settings have two levels and lists
INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Malformed(ValueError):
    """Text that is not YAML, or that settings may not have; the message says what and the line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class _Loader(yaml.SafeLoader):
    """A loader that composes nodes, without anchors, aliases and tags, and without deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Malformed(
                line, "anchors (&) and aliases (*) are not supported; repeat the value, or put it in quotes"
            )
        if getattr(event, "tag", None) is not None:
            raise Malformed(line, "tags (!) are not supported; remove it, or put the value in quotes")
        self.depth += 1
        if self.depth > DEEPEST:
            raise Malformed(line, "the nesting is too deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str, as_text: bool = False) -> Any:
    """The content of YAML text: dicts with text keys, lists and scalars; None if it is empty.

    Args:
        text: one document.
        as_text: do not convert values to numbers, true, false and null.

    Raises:
        Malformed: the text cannot be read.
    """
    node = _composed(text)
    return None if node is None else _value(node, as_text)


@lru_cache(maxsize=16)  # a command reads the settings of its run several times, and composing takes longest
def _composed(text: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = str(error.problem or error.context).replace("'<stream end>'", "its end")
        if "\\t" in reason:
            reason += "; YAML is indented with spaces, not tabs"
        raise Malformed(mark.line + 1 if mark else 1, reason) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Malformed(line, f"the character {chr(error.character)!r} is not allowed") from error
    finally:
        if loader:
            loader.dispose()
    return node


def _value(node: yaml.Node, as_text: bool) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, as_text)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, as_text) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return str(node.value) if as_text or node.style else scalar(node.value)


def _mapping(node: yaml.MappingNode, as_text: bool) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise Malformed(line, "a name must be text, not a list or a section")
        if key.value in mapping:
            raise Malformed(line, f"{key.value[:60]} is given twice; remove one of them")
        mapping[key.value] = _value(value, as_text)
    return mapping


def scalar(text: str) -> str | float | bool | None:
    """The value of a scalar without quotes."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which YAML 1.1 or ``scalar`` would read as something else."""


_Dumper.add_implicit_resolver("number", NUMBER, list("-+.0123456789"))


def dump(content: Any) -> str:
    """YAML text that ``parse`` and YAML 1.1 read alike."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    return text
