"""Kaggle's real client, in its own process, against a server on loopback: what fails, and what is said then."""

import base64
import json
import os
import re
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import psutil
import pytest
from kaggle_server import KEY, SIGNATURE, TOKEN, USER, Fault, KaggleServer

from competition.kaggle.client import Kaggle, KaggleError, Patience

ROOT = Path(__file__).parent.parent
QUICK = Patience(deadline=60, attempts=3, pause=0.05)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kaggle(server: KaggleServer, said: list[str]) -> Kaggle:
    return Kaggle(QUICK, said.append)


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


def test_a_status_that_the_client_does_not_know_is_passed_on(server: KaggleServer, kaggle: Kaggle) -> None:
    server.submissions = [{"ref": 2, "description": "b", "listed": 0}, {"ref": 1, "description": "a", "listed": 0}]
    server.outcome = {"status": "QUARANTINED"}
    assert [(listed.ref, listed.status) for listed in kaggle.submissions()] == [
        (2, "QUARANTINED"),
        (1, "QUARANTINED"),
    ]


def test_without_credentials_the_three_ways_are_named(
    server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    message = error_of(kaggle)
    assert message.startswith("no Kaggle credentials; make a token on https://www.kaggle.com/settings/api")
    for way in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "kaggle auth login"):
        assert way in message


def test_a_bad_key_is_named(server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "bad-key")
    assert error_of(kaggle).startswith("Kaggle rejects the user name and key from KAGGLE_KEY (401)")
    assert server.seen["ListSubmissions"] == 1  # and not tried again


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("kaggle.json", b""),
        ("kaggle.json", b'{"username": "grandmas'),
        ("kaggle.json", b"\xef\xbb\xbf{}"),
        ("kaggle.json", b"[]"),
        ("kaggle.json", b"\xff\xfe"),
        ("access_token", b"stale\ntoken"),
        ("access_token", "stale-tökèn-€".encode()),
        ("KAGGLE_API_TOKEN", b"stale\ntoken"),
        ("KAGGLE_KEY", "bad-k€y".encode()),
    ],
)
@pytest.mark.usefixtures("server")
def test_damaged_credentials_are_not_blamed_on_the_network(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    if name.startswith("KAGGLE"):
        monkeypatch.setenv(name, content.decode())
    else:
        monkeypatch.delenv("KAGGLE_USERNAME")
        monkeypatch.delenv("KAGGLE_KEY")
        folder = tmp_path / "home" / ".kaggle"
        folder.mkdir()
        (folder / name).write_bytes(content)
    assert re.match("no Kaggle credentials|the Kaggle credentials that were found cannot be read", error_of(kaggle))


def test_a_stale_token_that_hides_a_good_key_is_named(
    server: KaggleServer, kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir()
    (folder / "access_token").write_text("stale-token")
    (folder / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}))
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    expected = "rejects the token from ~/.kaggle/access_token, which comes before the key from kaggle.json; remove"
    assert expected in error_of(kaggle)
    (folder / "access_token").unlink()
    assert kaggle.submissions() == []
    (folder / "kaggle.json").unlink()
    monkeypatch.setenv("KAGGLE_API_TOKEN", "stale-token")
    assert error_of(kaggle).startswith("Kaggle rejects the token from KAGGLE_API_TOKEN; replace it")
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert kaggle.submissions() == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Fault(403, "You must accept this competition's rules"),
            "(403: You must accept this competition's rules); acc",
        ),
        (
            Fault(404),
            "Kaggle does not find this (404: no); see that https://www.kaggle.com/competitions/carvana-image",
        ),
        (Fault(400, f"Bad {KEY} at http://x/y?sig={SIGNATURE}"), "Kaggle refuses (400: Bad *** at http://x/y?***)"),
    ],
)
def test_what_kaggle_refuses_is_said_once(server: KaggleServer, kaggle: Kaggle, fault: Fault, expected: str) -> None:
    server.faults = {"ListSubmissions": [fault]}
    assert expected in error_of(kaggle)
    assert server.seen["ListSubmissions"] == 1


def test_trouble_that_passes_is_waited_out(server: KaggleServer, kaggle: Kaggle, said: list[str]) -> None:
    server.faults = {"ListSubmissions": [Fault(429, headers={"Retry-After": "1"}), Fault(500)]}
    start = time.monotonic()
    assert kaggle.submissions() == []
    assert time.monotonic() - start > 1
    assert said == [
        "Kaggle asks to slow down (429), and to wait 1 s; attempt 2 of 3 in 1 s",
        "Kaggle is in trouble (500: no); attempt 3 of 3 in 0 s",
    ]


def test_a_wait_that_is_too_long_is_not_begun(server: KaggleServer, kaggle: Kaggle) -> None:
    server.faults = {"ListSubmissions": [Fault(429, headers={"Retry-After": "3600"})]}
    assert "(429), and to wait 3600 s, after 1 attempt; type the same command again later" in error_of(kaggle)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(500), "Kaggle is in trouble (500: no), after 3 attempts; type the same command again later"),
        (Fault(lost=True), "cannot reach Kaggle: the connection was reset, after 3 attempts; type the same command"),
    ],
)
def test_trouble_that_stays_ends_after_the_attempts(
    server: KaggleServer, kaggle: Kaggle, fault: Fault, expected: str
) -> None:
    server.faults = {"ListSubmissions": [fault, ...]}
    assert error_of(kaggle).startswith(expected)
    assert server.seen["ListSubmissions"] == 3


def test_a_proxy_that_is_not_there_is_named(
    server: KaggleServer, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{KEY}@127.0.0.1:1")
    message = error_of(Kaggle(Patience(attempts=1)))
    assert message.startswith("cannot reach Kaggle: the proxy does not answer or refuses; see https_proxy")


def test_a_login_page_instead_of_an_answer_is_guessed(
    server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaggle_server.Handler.reply_json", lambda self, *_: self.reply(200, b"<html>Log in</html>"))
    assert "answer is not understood (JSONDecodeError); is a login page or a proxy between?" in error_of(kaggle)


def test_a_server_that_never_answers_ends_at_the_deadline(server: KaggleServer) -> None:
    server.faults = {"ListSubmissions": [Fault(hang=True)]}
    message = error_of(Kaggle(Patience(deadline=2)))
    assert message.startswith("Kaggle did not finish the call `submissions` within 2 s; see that the network works")
    assert server.seen["ListSubmissions"] <= 1
    assert calls_of(os.getpid()) == []


def calls_of(pid: int) -> list[int]:
    # Where a child of an earlier test has ended and is not waited for yet, ``cmdline()`` raises; here it has none.
    children = [child.as_dict(["pid", "cmdline"], []) for child in psutil.Process(pid).children(recursive=True)]
    return [child["pid"] for child in children if "competition.kaggle.calls" in child["cmdline"]]


def test_a_call_does_not_outlive_its_command(server: KaggleServer, tmp_path: Path) -> None:
    server.faults = {"ListSubmissions": [Fault(hang=True)]}
    script = "from competition.kaggle.client import Kaggle; Kaggle().submissions()"
    command = psutil.Popen([sys.executable, "-c", script], cwd=ROOT)
    until(lambda: server.seen["ListSubmissions"] == 1)
    [call] = calls_of(command.pid)
    command.kill()
    command.wait()
    until(lambda: not psutil.pid_exists(call) or psutil.Process(call).status() == psutil.STATUS_ZOMBIE)


def until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def test_a_terminal_sees_the_progress_and_no_secrets(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSE", "1")  # which makes the client print what it sends
    server.faults = {"upload": [Fault(after=10)]}  # which makes urllib3 warn, and name the address
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


def test_the_limits(server: KaggleServer, kaggle: Kaggle) -> None:
    server.left, server.today = 2, 3
    limits = kaggle.allowance()
    assert (limits.today, limits.total, limits.left) == (3, 3, 2)
