"""YAML without the surprises of version 1.1, tags, anchors and doubled names."""

import pytest

from competition.settings.strict_yaml import Malformed, dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, int(text)) for text in ("0", "16", "016", "-016", "+5", "9" * 40)],
        *[(text, float(text)) for text in ("1.5", ".5", "5.", "1e3", "-1E-4", "1.0e+2", "016.5", "9" * 41)],
        *[(text, True) for text in ("true", "True", "TRUE")],
        *[(text, False) for text in ("false", "False", "FALSE")],
        *[(text, None) for text in ("", "# nothing", "~", "null", "Null", "NULL")],
        *[
            (text, text)
            for text in ("0x10", "0o17", "0b1", "1_000", "1:30", "1e", "e3", ".", "+", "-5-", "1 2", "\u0661")
        ],
        *[
            (text, text)
            for text in ("yes", "no", "on", "off", "y", "n", ".inf", ".nan", "nan", "2026-11-24", "=", "<<")
        ],
        ("'5'", "5"),
        ('"true"', "true"),
        ("[1, '1', a: 2]", [1, "1", {"a": 2}]),
        ("{1: 2, yes: no, ~: 1, <<: {a: 1}}", {"1": 2, "yes": "no", "~": 1, "<<": {"a": 1}}),
        ("a:\n  - 1\n  - |\n    5\n", {"a": [1, "5\n"]}),
    ],
)
def test_values(text: str, value: object) -> None:
    found = parse(text)
    assert (found, type(found)) == (value, type(value))
    if isinstance(value, str | float | int | None):
        assert parse(dump({"a": value})) == {"a": value}


def test_values_as_text() -> None:
    assert parse("[016, true, ~, '5']", as_text=True) == ["016", "true", "~", "5"]
    assert parse("", as_text=True) is None


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\na: 1", 2, "a is given twice; remove one of them"),
        ("x: {a: 1,\n 'a': 2}", 2, "a is given twice"),
        ("a: !!bool maybe", 1, "tags (!) are not supported"),
        ("a: !!timestamp 2001", 1, "tags (!) are not supported"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags (!) are not supported"),
        ("a: ! 5", 1, "tags (!) are not supported"),
        ("!!str a: 5", 1, "tags (!) are not supported"),
        ("a: &x 5", 1, "anchors (&) and aliases (*) are not supported"),
        ("\na: *x", 2, "anchors (&) and aliases (*) are not supported"),
        (LAUGHS, 1, "anchors (&) and aliases (*) are not supported"),
        ("a: 1\n---\nb: 1", 2, "but found another document"),
        ("[1, 2]: 3", 1, "a name must be text, not a list or a section"),
        ("[" * 10_000, 1, "the nesting is too deep"),
        ("{a: " * 10_000, 1, "the nesting is too deep"),
        ("- " * 10_000, 1, "the nesting is too deep"),
        (
            "a:\n\tb: 1",
            2,
            "found character '\\t' that cannot start any token; YAML is",
        ),
        ("a: 1\nb: \0", 2, "the character '\\x00' is not allowed"),
        ("a: \udcff", 1, "the character '\\udcff' is not allowed"),
        ("a: b: c", 1, "mapping values are not allowed here"),
        ("a: 'b", 1, "found unexpected end of stream"),
        ("%YAML 1.1 x", 1, "expected a comment or a line break, but found 'x'"),
    ],
)
def test_malformed_text(text: str, line: int, reason: str) -> None:
    with pytest.raises(Malformed) as error:
        parse(text)
    assert error.value.line == line
    assert error.value.reason.startswith(reason)
