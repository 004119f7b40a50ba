"""An HTTP server on loopback that implements what Kaggle's client needs, and fails on demand.

The real client uses it as its proxy, so URLs are absolute and name hosts that do not exist.
"""

import base64
import hashlib
import io
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest

from competition.kaggle import calls, client, credentials

USER, KEY, TOKEN = "me", "good-key-0123456789", "good-token-0123456789"
SIGNATURE = "signature-of-a-signed-url"
STORAGE = "http://storage.invalid"
LOGIN = "http://login.invalid"


@dataclass
class Fault:
    """What goes wrong with one request.

    Args:
        status: reply with this status, and with the message as JSON.
        after: break the connection after that many bytes of an upload (read) or of a download (written).
        body: reply with these bytes, and with status 200 unless there is another one.
        lost: process the request, then break the connection instead of replying.
        hang: do not reply.
    """

    status: int = 0
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    body: bytes | None = None
    lost: bool = False
    hang: bool = False


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition; fail if it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.02)  # time.sleep may be patched


class KaggleServer:
    """The server with its state.

    Attributes:
        faults: name of a call (``ListSubmissions``, ..., ``upload``, ``file``) to the faults of the next requests;
            ``[fault, ...]`` repeats for ever.
        submissions: the latest first, in the JSON of the list.
        outcome: the result of a submission after it was listed ``pending`` times.
        lag: how many requests of the list do not contain a new submission yet.
        uploads: token to SHA-256 of each upload.
        files: name to bytes of the competition's data.
        seen: name of a call to the number of requests.
        login: the page at LOGIN.
        starts: the offset at which each download of a file started, in bytes.
    """

    def __init__(self) -> None:
        self.faults: dict[str, list[Any]] = {}
        self.submissions: list[dict[str, Any]] = []
        self.outcome: dict[str, str] = {"status": "COMPLETE", "publicScore": "0.99712", "privateScore": "0.99693"}
        self.pending = self.lag = 0
        self.left, self.today = 5, 0
        self.uploads: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.seen: Counter[str] = Counter()
        self.starts: list[int] = []
        self.login = b"<html>Log in</html>"
        self.released = threading.Event()
        server = self

        class Bound(Handler):
            kaggle = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "KaggleServer":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home: str) -> dict[str, str]:
        """The variables that make Kaggle's client use this server and that home folder."""
        return {
            "HOME": home,
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": f"http://127.0.0.1:{self.http.server_address[1]}",
            "no_proxy": "",
        }

    def fault(self, name: str) -> Fault:
        """The fault of the next request of that name; an empty one if nothing goes wrong."""
        coming = self.faults.get(name, [])
        if coming[1:] == [...]:
            return coming[0]
        return coming.pop(0) if coming else Fault()

    def call(self, name: str, body: dict[str, Any], authorization: str) -> dict[str, Any] | None:
        """The reply to a call; None if the credentials are wrong."""
        if name == "IntrospectToken":
            good = body.get("token") == TOKEN
            return {"active": good, "username": USER} if good else {"active": False}
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if authorization not in (f"Basic {basic}", f"Bearer {TOKEN}"):
            return None
        return getattr(self, name)(body)

    def StartSubmissionUpload(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        token = f"token-{self.seen['StartSubmissionUpload']}"
        return {"token": token, "createUrl": f"{STORAGE}/upload/{token}?X-Goog-Signature={SIGNATURE}"}

    def CreateSubmission(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        ref = 1000 + len(self.submissions)
        self.submissions.insert(
            0,
            {
                "ref": ref,
                "date": f"2026-11-22T10:00:{len(self.submissions):02d}.123Z",
                "description": body["submissionDescription"],
                "fileName": "submission.csv.gz",
                "sha256": self.uploads[body["blobFileTokens"]],
                "listed": 0,
            },
        )
        self.today += 1
        self.left -= 1
        return {"message": "Successfully submitted to Carvana", "ref": ref}

    def ListSubmissions(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        first = int(body.get("pageToken") or 0)
        known = [submitted for submitted in self.submissions if submitted.get("missed", 0) >= self.lag]
        for submitted in self.submissions:
            submitted["missed"] = submitted.get("missed", 0) + 1
        page, more = page_of(known, first, 3)
        for listed in page:
            if listed["listed"] >= self.pending:
                listed |= {"status": self.outcome["status"], **self.outcome, **listed}
            listed["listed"] += 1
        return {"submissions": page, "nextPageToken": more}

    def GetSubmissionLimits(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"numToday": self.today, "numTotal": self.today, "numAllowedNow": self.left}

    def ListDataFiles(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        first = int(body.get("pageToken") or 0)
        files = [{"name": name, "totalBytes": len(content)} for name, content in self.files.items()]
        page, more = page_of(files, first, 4)
        return {"files": page, "nextPageToken": more}


def page_of(items: list[Any], first: int, size: int) -> tuple[list[Any], str]:
    """A page of a list, and the token of the next page."""
    return items[first : first + size], str(first + size) if first + size < len(items) else ""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"
    headers: Message

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        name = urlsplit(self.path).path.split("/")[-1]
        kaggle = self.kaggle
        kaggle.seen[name] += 1
        fault = kaggle.fault(name)
        if self.failed(fault):
            return
        if name == "DownloadDataFile":
            location = f"{STORAGE}/file/{body['fileName']}?X-Goog-Signature={SIGNATURE}"
            self.reply(302, b"", {"Location": location})
            return
        reply = kaggle.call(name, body, self.headers.get("Authorization", ""))
        if fault.lost:
            self.reset()
        elif reply is None:
            self.reply_json(401, {"code": 401, "message": "Unauthenticated"})
        else:
            self.reply_json(200, reply)

    def do_PUT(self) -> None:
        kaggle = self.kaggle
        kaggle.seen["upload"] += 1
        fault = kaggle.fault("upload")
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        if fault.after is not None:
            self.rfile.read(fault.after)
            self.reset()
            return
        while left and (part := self.rfile.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        if left or self.failed(fault):
            return
        kaggle.uploads[urlsplit(self.path).path.split("/")[-1]] = digest.hexdigest()
        self.reply(200, b"")

    def do_GET(self) -> None:
        kaggle = self.kaggle
        if self.path.startswith(LOGIN):
            self.reply(200, kaggle.login, {"Content-Type": "text/html"})
            return
        content = kaggle.files[urlsplit(self.path).path.split("/")[-1]]
        start = 0
        if wanted := self.headers.get("Range"):
            kaggle.seen["file"] += 1
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            kaggle.starts.append(start)
        fault = kaggle.fault("file") if wanted else Fault()
        if self.failed(fault):
            return
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with suppress(OSError):
            if fault.after is not None:
                self.wfile.write(content[start : start + fault.after])
                self.wfile.flush()
                self.reset(hard=False)
            elif wanted:
                self.wfile.write(content[start:])
            else:  # the client reads only the headers
                self.wfile.write(content[:100_000])
                self.close_connection = True

    def failed(self, fault: Fault) -> bool:
        """Whether the fault was a hang or a status, which is then the reply."""
        if fault.hang:
            self.kaggle.released.wait(30)
            self.close_connection = True
        elif fault.body is not None:
            self.reply(fault.status or 200, fault.body, fault.headers)
        elif fault.status:
            self.reply_json(fault.status, {"code": fault.status, "message": fault.message}, fault.headers)
        return fault.hang or bool(fault.status) or fault.body is not None

    def reply_json(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def reset(self, hard: bool = True) -> None:
        """End the connection with a reset, or (not ``hard``) so that what was written still arrives."""
        if hard:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        self.wfile = io.BytesIO()  # for the server's last flush


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """A running server, and an environment with an empty home in which the client reaches it with a valid key."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    with KaggleServer() as started:
        for name, value in started.environment(str(home)).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", KEY)
        yield started


@pytest.fixture
def in_process(server: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Kaggle calls in this process: importing the client for each call takes a second.

    The process of a call is tested in test_kaggle_client.py. The client looks for ~/.kaggle/kaggle.json only in the
    home folder in which it was first imported, so tests of credential files need that process too.
    """

    def run_call(call: str, arguments: dict[str, str], seconds: float) -> dict[str, Any]:
        environment = credentials.cleaned(os.environ)
        with patch.dict(os.environ, environment, clear=True), redirect_stdout(io.StringIO()):  # the client prints
            return json.loads(json.dumps(calls.reply_to(call, arguments)))

    monkeypatch.setattr(client, "run_call", run_call)
