"""Credentials that Kaggle's client does not take as they are: cleaned, or refused with the one cause."""

import json
from pathlib import Path

import pytest

from competition.kaggle.credentials import KEY, TOKEN, USER, cleaned
from competition.kaggle.errors import KaggleError

BOM = "\ufeff"
PAIR = {USER: "me", KEY: "key-1"}
JSON = json.dumps({"username": "me", "key": "key-1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """~/.kaggle."""
    made = tmp_path / ".kaggle"
    made.mkdir()
    return made


def found(folder: Path, **variables: str) -> dict[str, str]:
    """The credentials in the variables of the client."""
    given = {name: value for name, value in variables.items() if value}
    result = cleaned({"HOME": str(folder.parent), "PATH": "/bin", **given})
    assert result["PATH"] == "/bin"
    return {name: result[name] for name in (TOKEN, USER, KEY) if name in result}


def error_of(folder: Path, **variables: str) -> str:
    with pytest.raises(KaggleError) as raised:
        found(folder, **variables)
    message = str(raised.value).replace(str(folder), "~/.kaggle")
    assert "key-1" not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "written",
    [
        "key-1",
        "key-1\n",
        "\r\n key-1\t",
        f"{BOM}key-1",
        '"key-1"',
        f"{BOM}'key-1'\r\n",
        "\u201ckey-1\u201d",
        "key-1\0",
    ],
)
def test_what_surrounds_a_value_is_removed(folder: Path, written: str) -> None:
    assert found(folder, KAGGLE_API_TOKEN=written) == {TOKEN: "key-1"}
    assert found(folder, KAGGLE_USERNAME=written.replace("key-1", "me"), KAGGLE_KEY=written) == PAIR
    (folder / "kaggle.json").write_text(json.dumps({"username": "me", "key": written}))
    assert found(folder) == PAIR
    for encoding in ("utf-8", "utf-16"):
        (folder / "access_token").write_bytes(written.encode(encoding))
        assert found(folder) == {TOKEN: "key-1"}
    assert found(folder, KAGGLE_API_TOKEN=str(folder / "access_token")) == {TOKEN: "key-1"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_kaggle_json_in_other_encodings(folder: Path, encoding: str) -> None:
    text = JSON if encoding in ("utf-8-sig", "utf-16") else BOM + JSON
    (folder / "kaggle.json").write_bytes(f"{text}\r\n".encode(encoding))
    assert found(folder) == PAIR


def test_the_order_is_that_of_the_client(folder: Path) -> None:
    (folder / "kaggle.json").write_text(JSON.replace("key-1", "key-2"))
    (folder / "access_token").write_text("\n")
    assert found(folder) == {USER: "me", KEY: "key-2"}
    assert found(folder, KAGGLE_KEY=" ", KAGGLE_USERNAME="you") == {USER: "you", KEY: "key-2"}
    assert found(folder, **PAIR) == PAIR
    (folder / "access_token.txt").write_text("token-3")
    assert found(folder, **PAIR) == PAIR | {TOKEN: "token-3"}
    (folder / "access_token").write_text("token-4")
    assert found(folder)[TOKEN] == "token-4"
    assert found(folder, KAGGLE_API_TOKEN="token-5")[TOKEN] == "token-5"


def test_other_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "kaggle.json").write_text(JSON)
    assert found(folder, KAGGLE_CONFIG_DIR=str(tmp_path / "set")) == PAIR
    folder.rmdir()
    (tmp_path / "set").rename(tmp_path / "kaggle")
    assert found(folder, XDG_CONFIG_HOME=str(tmp_path)) == PAIR
    assert found(folder) == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("key-1\nkey-1", "has a line break inside; copy it again from https://www.kaggle.com/settings/api"),
        ("key-1 key-1", "has a space inside"),
        ("key-1\u20ac", "has the character U+20AC inside"),
        ("key-\u00a01", "has the character U+00A0 inside"),
        (JSON, "holds JSON, not a token; save that as ~/.kaggle/kaggle.json"),
    ],
)
def test_what_cannot_be_repaired_is_named(folder: Path, value: str, reason: str) -> None:
    assert error_of(folder, KAGGLE_API_TOKEN=value).startswith(f"KAGGLE_API_TOKEN {reason}")
    assert error_of(folder, KAGGLE_KEY=value, KAGGLE_USERNAME="me").startswith(f"KAGGLE_KEY {reason}")
    (folder / "kaggle.json").write_text(json.dumps({"username": "me", "key": value}))
    assert error_of(folder).startswith(f"`key` in ~/.kaggle/kaggle.json {reason}")
    (folder / "access_token").write_text(value)
    assert error_of(folder).startswith(f"~/.kaggle/access_token {reason}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "access_token",
            b"",
            "~/.kaggle/access_token is empty; create a token on https://www.kaggle.com/settings/api",
        ),
        ("kaggle.json", b" \n", "~/.kaggle/kaggle.json is empty; create a token on"),
        ("kaggle.json", b"{}", "~/.kaggle/kaggle.json is empty; create a token on"),
        (
            "kaggle.json",
            b"[]",
            "~/.kaggle/kaggle.json holds no JSON object; get a new one from https://www.kaggle.com",
        ),
        ("kaggle.json", b'{"username": "me", ', "~/.kaggle/kaggle.json is not JSON (Expecting property name"),
        ("kaggle.json", b'{"username": "me"}', "~/.kaggle/kaggle.json has no `key`; get a new one from"),
        ("kaggle.json", b'{"username": null, "key": "key-1"}', "~/.kaggle/kaggle.json has no `username`"),
        ("kaggle.json", b"\xff\xfe\xff", "~/.kaggle/kaggle.json is not text in UTF-8"),
        ("access_token", b"k\xe4y", "~/.kaggle/access_token is not text in UTF-8; save it again as text, or get"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    assert error_of(folder).startswith(message)


@pytest.mark.parametrize("name", ["access_token", "kaggle.json"])
def test_a_folder_or_an_unreadable_file(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir()
    assert error_of(folder).startswith(f"~/.kaggle/{name} is a folder, not a file; remove it, and save a token from")
    (folder / name).rmdir()
    (folder / name).write_text("key-1")
    monkeypatch.setattr(Path, "read_bytes", deny)  # root may read everything
    assert error_of(folder) == (
        f"cannot read ~/.kaggle/{name}: permission denied; check the owner and the permissions"
    )


def deny(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


def test_empty_files_beside_the_login_of_the_client(folder: Path) -> None:
    (folder / "access_token").write_text("")
    (folder / "credentials.json").write_text("{}")
    assert found(folder) == {}
