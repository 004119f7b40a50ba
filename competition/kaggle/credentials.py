"""Clean the credentials for Kaggle's client, in variables and in files.

The client takes a byte order mark, a line break or quotes for a part of a token, or ignores the file that has them.
Here they are removed, and what cannot be repaired is named.
"""

import codecs
import json
from collections.abc import Mapping
from pathlib import Path

from competition.command import os_reason
from competition.kaggle.errors import TOKENS, KaggleError

TOKEN, USER, KEY = "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"
TOKEN_FILE, KEY_FILE = "CARVANA_TOKEN_FILE", "CARVANA_KEY_FILE"  # where ``cleaned`` has found them
INVISIBLE = "\ufeff\u200b\u200e\u2060"  # byte order mark, zero-width space, direction mark, word joiner
QUOTES = "\"'`\u201c\u201d\u2018\u2019"


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with clean credentials in its variables, also those from files.

    They are looked up in the client's order, and only the first ones are read. Credentials of `kaggle auth login`
    are left to the client.
    """
    home = Path(environment.get("HOME") or Path.home())
    given = environment.get(TOKEN, "")
    rest = {name: value for name, value in environment.items() if name != TOKEN}
    if not _is_file(given) and (token := _clean(given, TOKEN)):
        return rest | {TOKEN: token}
    empty = []
    for path in [Path(given)] if _is_file(given) else token_files(home):
        if path.exists():
            if token := _clean(_text(path), str(path)):
                return rest | {TOKEN: token, TOKEN_FILE: str(path)}
            empty.append(path)
    pair = {name: value for name in (USER, KEY) if (value := _clean(rest.pop(name, ""), name))}
    if len(pair) == 2:
        return rest | pair
    path = key_file(environment, home)
    if path.exists():
        if stored := _pair(path):
            return rest | stored | pair | {KEY_FILE: str(path)}
        empty.append(path)
    if empty and not (home / ".kaggle" / "credentials.json").exists():
        raise KaggleError(f"{empty[0]} is empty; create a token on {TOKENS} and save it there")
    return rest | pair


def token_files(home: Path) -> list[Path]:
    """The files in which Kaggle's client looks for a token."""
    return [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def key_file(environment: Mapping[str, str], home: Path) -> Path:
    """The kaggle.json that Kaggle's client reads."""
    folder = Path(environment.get("KAGGLE_CONFIG_DIR") or home / ".kaggle")
    if not environment.get("KAGGLE_CONFIG_DIR") and not folder.exists():
        folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    return folder / "kaggle.json"


def _is_file(text: str) -> bool:
    """Whether a variable holds the path of a file and not a token."""
    try:
        return Path(text.strip()).is_file()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 as PowerShell writes it."""
    if path.is_dir():
        raise KaggleError(
            f"{path} is a folder, not a file; remove it, and save a token from {TOKENS} under that name"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KaggleError(f"cannot read {path}: {os_reason(error)}") from error
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise KaggleError(
            f"{path} is not text in UTF-8; save it again as text, or get a new one from {TOKENS}"
        ) from error


def _pair(path: Path) -> dict[str, str]:
    """The user name and the key in a kaggle.json; empty if it has neither."""
    text = _text(path)
    if not text.strip():
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise KaggleError(f"{path} is not JSON ({error}); get a new one from {TOKENS}") from error
    if not isinstance(content, dict):
        raise KaggleError(f"{path} holds no JSON object; get a new one from {TOKENS}")
    pair = {}
    for key, name in (("username", USER), ("key", KEY)):
        value = content.get(key)
        if isinstance(value, str) and (clean := _clean(value, f"`{key}` in {path}")):
            pair[name] = clean
        elif "username" in content or "key" in content:
            raise KaggleError(f"{path} has no `{key}`; get a new one from {TOKENS}")
    return pair


def _clean(value: str, where: str) -> str:
    """A token, a key or a user name without what surrounds it; fails if something else is in it."""
    inner = value.strip(INVISIBLE + QUOTES + " \t\r\n\f\v\0")
    if inner.startswith("{"):
        raise KaggleError(f"{where} holds JSON, not a token; save that as ~/.kaggle/kaggle.json")
    wrong = next((character for character in inner if not "!" <= character <= "~"), None)
    if wrong is None:
        return inner
    names = {"\n": "a line break", "\r": "a line break", " ": "a space", "\t": "a tab", "\0": "a NUL character"}
    name = names.get(wrong, f"the character U+{ord(wrong):04X}")
    raise KaggleError(f"{where} has {name} inside; copy it again from {TOKENS}")
