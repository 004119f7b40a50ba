"""Kaggle's real client against a server on loopback: retries, deadlines, and the message of each error."""

import base64
import json
import os
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest
from kaggle_server import KEY, SIGNATURE, TOKEN, USER, Fault, KaggleServer, until

from competition.kaggle import client
from competition.kaggle.client import Kaggle, RetryPolicy
from competition.kaggle.errors import KaggleError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def slow_kaggle(server: KaggleServer, log: list[str]) -> Kaggle:
    """A client that makes each call in a process of its own, as users do."""
    return Kaggle(RetryPolicy(deadline=60, attempts=3, pause=0.02), log.append)


@pytest.fixture
def kaggle(in_process: None, slow_kaggle: Kaggle) -> Kaggle:
    return slow_kaggle


def error_of(kaggle: Kaggle) -> str:
    with pytest.raises(KaggleError) as raised:
        kaggle.submissions()
    message = str(raised.value)
    assert "\n" not in message
    for secret in (KEY, TOKEN, SIGNATURE, "bad-key", "stale-token"):
        assert secret not in message
    return message


def test_lists_are_read_to_their_last_page(server: KaggleServer, kaggle: Kaggle) -> None:
    server.submissions = [{"ref": ref, "description": f"number {ref}", "listed": 0} for ref in range(8, 0, -1)]
    listed = kaggle.submissions()
    assert [submission.ref for submission in listed] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert (listed[0].status, listed[0].public, listed[0].private) == ("COMPLETE", "0.99712", "0.99693")
    assert server.seen["ListSubmissions"] == 3


def test_the_allowance_and_a_status_that_the_client_does_not_know(server: KaggleServer, kaggle: Kaggle) -> None:
    server.left, server.today = 2, 3
    assert kaggle.allowance() == client.Allowance(today=3, total=3, left=2)
    server.submissions = [{"ref": ref, "description": "a", "listed": 0} for ref in (2, 1)]
    server.outcome = {"status": "QUARANTINED"}
    assert [(each.ref, each.status) for each in kaggle.submissions()] == [(2, "QUARANTINED"), (1, "QUARANTINED")]


def test_without_credentials_the_message_names_three_ways(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    message = error_of(kaggle)
    assert message.startswith("no Kaggle credentials found; create a token on https://www.kaggle.com/settings/api")
    for way in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "kaggle auth login"):
        assert way in message


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (("KAGGLE_KEY", "bad-key"), r"Kaggle rejected the user name and key from KAGGLE_KEY \(401\)"),
        (("KAGGLE_KEY", "bad-k€y"), r"KAGGLE_KEY has the character U\+20AC inside; copy it again"),
        (("KAGGLE_API_TOKEN", "stale-token"), "Kaggle rejected the token from KAGGLE_API_TOKEN; replace it"),
        (("KAGGLE_API_TOKEN", "stale\ntoken"), "KAGGLE_API_TOKEN has a line break inside; copy it again"),
    ],
)
def test_bad_credentials_in_a_variable(
    server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str], expected: str
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv(*variable)
    assert re.match(expected, error_of(kaggle))
    assert server.seen["ListSubmissions"] <= 1, "not retried"
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert kaggle.submissions() == []


@pytest.fixture
def kaggle_folder(server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """~/.kaggle, no credentials in variables, and a working folder that is not the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("access_token", f"\ufeff{TOKEN}\r\n".encode()),
        ("access_token", f"'{TOKEN}'\n".encode("utf-16")),
        ("kaggle.json", json.dumps({"username": f" {USER}", "key": f"{KEY}\n"}).encode("utf-8-sig")),
    ],
)
def test_credential_files_that_need_cleaning(
    slow_kaggle: Kaggle, kaggle_folder: Path, name: str, content: bytes
) -> None:
    (kaggle_folder / name).write_bytes(content)
    assert slow_kaggle.submissions() == []


def test_a_stale_token_that_hides_a_valid_key(slow_kaggle: Kaggle, kaggle_folder: Path) -> None:
    (kaggle_folder / "access_token").write_text("stale-token")
    (kaggle_folder / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}))
    expected = (
        f"token from {kaggle_folder}/access_token, which takes precedence over the key from kaggle.json; remove"
    )
    assert expected in error_of(slow_kaggle)
    (kaggle_folder / "access_token").unlink()
    assert slow_kaggle.submissions() == []


@pytest.mark.parametrize(
    ("fault", "attempts", "expected"),
    [
        (Fault(403, "Accept this"), 1, "Kaggle denied access (403: Accept this); accept the rules on https://www.k"),
        (Fault(404), 1, "Kaggle did not find this (404: no); check that https://www.kaggle.com/competitions/carvana"),
        (
            Fault(400, f"Bad {KEY} at http://x/y?sig={SIGNATURE}"),
            1,
            "Kaggle rejected the request (400: Bad *** at http://x/y?***)",
        ),
        (
            Fault(429, headers={"Retry-After": "3600"}),
            1,
            "too many requests to Kaggle (429), which asks to wait 3600 s",
        ),
        (Fault(500), 3, "Kaggle has a server error (500: no), after 3 attempts; run the same command again later"),
        (Fault(lost=True), 3, "cannot reach Kaggle: the connection was reset, after 3 attempts; run the"),
    ],
)
def test_only_a_temporary_error_is_retried(
    server: KaggleServer, kaggle: Kaggle, fault: Fault, attempts: int, expected: str
) -> None:
    server.faults = {"ListSubmissions": [fault, ...]}
    assert error_of(kaggle).startswith(expected)
    assert server.seen["ListSubmissions"] == attempts


def test_a_temporary_error_is_retried_after_a_pause(
    server: KaggleServer, kaggle: Kaggle, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.faults = {"ListSubmissions": [Fault(429, headers={"Retry-After": "7"}), Fault(500)]}
    assert kaggle.submissions() == []
    assert pauses == [7, 0.04]
    assert log == [
        "too many requests to Kaggle (429), which asks to wait 7 s; attempt 2 of 3 in 7 s",
        "Kaggle has a server error (500: no); attempt 3 of 3 in 0 s",
    ]


def test_a_proxy_that_does_not_exist(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{KEY}@127.0.0.1:1")
    message = error_of(kaggle)
    assert message.startswith("cannot reach Kaggle: the proxy does not reply or rejects the connection; check https_")


@pytest.mark.parametrize("fault", [Fault(after=200_000), Fault(hang=True)], ids=["reset for ever", "hang"])
def test_an_upload_that_never_ends_is_killed_at_the_deadline(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(client, "SLOWEST", 1e9)  # the size of the file adds no time
    file = tmp_path / "submission.csv.gz"
    file.write_bytes(bytes(5_000_000))  # more than the buffer of a socket
    server.faults = {"upload": [fault, ...]}
    with pytest.raises(KaggleError, match="did not finish the call `push` within 2 s; check the network") as raised:
        Kaggle(RetryPolicy(deadline=2)).push(file, "first")
    assert (raised.value.transient, raised.value.unsubmitted) == (True, False)
    assert server.submissions == []
    assert calls_of(os.getpid()) == []


def calls_of(pid: int) -> list[int]:
    # ``cmdline()`` raises for a child of an earlier test that has ended and was not waited for.
    children = [child.as_dict(["pid", "cmdline"], []) for child in psutil.Process(pid).children(recursive=True)]
    return [child["pid"] for child in children if "competition.kaggle.calls" in child["cmdline"]]


def test_a_call_does_not_outlive_its_command(server: KaggleServer) -> None:
    server.faults = {"ListSubmissions": [Fault(hang=True)]}
    script = "from competition.kaggle.client import Kaggle; Kaggle().submissions()"
    command = psutil.Popen([sys.executable, "-c", script], cwd=ROOT)
    until(lambda: server.seen["ListSubmissions"] == 1)
    [call] = calls_of(command.pid)
    command.kill()
    command.wait()
    until(lambda: not psutil.pid_exists(call) or psutil.Process(call).status() == psutil.STATUS_ZOMBIE)


def test_a_terminal_shows_progress_and_no_secrets(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSE", "1")  # the client then prints what it sends
    server.faults = {"upload": [Fault(after=10)]}  # urllib3 then warns, and prints the URL
    file = tmp_path / "submission.csv.gz"
    file.write_bytes(bytes(1000))
    push = f"Kaggle().push(Path({str(file)!r}), 'a')"
    script = f"from pathlib import Path; from competition.kaggle.client import Kaggle; {push}"
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, 100))
    command = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=end, check=True)
    os.close(end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert (len(server.submissions), command.stdout) == (1, b"")
    assert "B/s" in shown
    for secret in (KEY, SIGNATURE, base64.b64encode(f"{USER}:{KEY}".encode()).decode(), "Authorization", "http"):
        assert secret not in shown
