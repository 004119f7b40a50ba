"""A Kaggle on loopback: an HTTP server that speaks what Kaggle's client speaks, and fails on demand.

The real client reaches it as its proxy, so that addresses are absolute and name hosts that do not exist.
"""

import base64
import hashlib
import io
import json
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

USER, KEY, TOKEN = "me", "good-key-0123456789", "good-token-0123456789"
SIGNATURE = "signature-of-a-signed-address"
STORAGE = "http://storage.invalid"


@dataclass
class Fault:
    """What goes wrong with one request.

    Args:
        status: answer this, with the message as JSON.
        after: break the connection once so many bytes have been read (of an upload) or written (of a download).
        lost: do what was asked, and break the connection instead of answering.
        hang: answer nothing.
    """

    status: int = 0
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    lost: bool = False
    hang: bool = False


class KaggleServer:
    """The server, what it knows, and what it has seen.

    Attributes:
        faults: by the name of the call (``ListSubmissions``, ..., ``upload``, ``file``), what goes wrong with the
            next requests; ``[fault, ...]`` goes on for ever.
        submissions: what was submitted, the latest first, in the list's JSON.
        outcome: what becomes of a submission once it was listed ``pending`` times.
        lag: how often the list is asked for before it has a new submission.
        uploads: SHA-256 of what was uploaded, by token.
        files: name to bytes of the competition's data.
        seen: number of requests by name.
        starts: where each download of a file began, in bytes.
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
        self.bodies: list[dict[str, Any]] = []
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
        """What makes Kaggle's client talk to this server, with nothing but a home of its own."""
        return {
            "HOME": home,
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": f"http://127.0.0.1:{self.http.server_address[1]}",
            "no_proxy": "",
        }

    def fault(self, name: str) -> Fault:
        """The fault of the next request of that name; an empty one where nothing goes wrong."""
        coming = self.faults.get(name, [])
        if coming[1:] == [...]:
            return coming[0]
        return coming.pop(0) if coming else Fault()

    # What the calls do.

    def call(self, name: str, body: dict[str, Any], authorization: str) -> dict[str, Any] | None:
        """The answer to a call; None where the credentials are wrong."""
        if name == "IntrospectToken":
            good = body.get("token") == TOKEN
            return {"active": good, "username": USER} if good else {"active": False}
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if authorization not in (f"Basic {basic}", f"Bearer {TOKEN}"):
            return None
        answer: dict[str, Any] = getattr(self, name)(body)
        return answer

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
        page = known[first : first + 3]
        for listed in page:
            if listed["listed"] >= self.pending:
                listed |= {"status": self.outcome["status"], **self.outcome, **listed}
            listed["listed"] += 1
        more = first + 3 < len(known)
        return {"submissions": page, "nextPageToken": str(first + 3) if more else ""}

    def GetSubmissionLimits(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"numToday": self.today, "numTotal": self.today, "numAllowedNow": self.left}

    def ListDataFiles(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        first = int(body.get("pageToken") or 0)
        page = list(self.files.items())[first : first + 4]
        more = first + 4 < len(self.files)
        return {
            "files": [{"name": name, "totalBytes": len(content)} for name, content in page],
            "nextPageToken": str(first + 4) if more else "",
        }


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
        kaggle.bodies.append(body)
        fault = kaggle.fault(name)
        if self.failed(fault):
            return
        if name == "DownloadDataFile":
            location = f"{STORAGE}/file/{body['fileName']}?X-Goog-Signature={SIGNATURE}"
            self.reply(302, b"", {"Location": location})
            return
        answer = kaggle.call(name, body, self.headers.get("Authorization", ""))
        if fault.lost:
            self.reset()
        elif answer is None:
            self.reply_json(401, {"code": 401, "message": "Unauthenticated"})
        else:
            self.reply_json(200, answer)

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
            else:  # the client only wants to see the headers, and leaves
                self.wfile.write(content[:100_000])
                self.close_connection = True

    def failed(self, fault: Fault) -> bool:
        """Answer as the fault has it; false where nothing went wrong yet."""
        if fault.hang:
            self.kaggle.released.wait(30)
            self.close_connection = True
        elif fault.status:
            self.reply_json(fault.status, {"code": fault.status, "message": fault.message}, fault.headers)
        return fault.hang or bool(fault.status)

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
        """End the connection: with a reset, or, so that what was written arrives, with an early end."""
        if hard:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        self.wfile = io.BytesIO()  # for the server's last flush


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """A Kaggle, and an environment with an empty home from which the client reaches it with a good key."""
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
