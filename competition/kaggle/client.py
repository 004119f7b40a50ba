"""Kaggle, with deadlines, a bounded number of attempts, and one kind of error that says what to do.

Every call runs in a process of its own (``kaggle.calls``), which is ended when its time is up. Broken connections,
429 and 5xx are tried again after a pause, nothing else is.
"""

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from competition.command import Failure

PAGE = "https://www.kaggle.com/competitions/carvana-image-masking-challenge"
TOKENS = "https://www.kaggle.com/settings/api"
SLOWEST = 100_000  # bytes a second that a transfer is given time for
LONGEST_PAUSE = 600.0  # seconds; who is told to wait longer comes back by himself
NO_CREDENTIALS = (
    f"no Kaggle credentials; make a token on {TOKENS} and put it into KAGGLE_API_TOKEN or ~/.kaggle/access_token, or "
    "set KAGGLE_USERNAME and KAGGLE_KEY (or ~/.kaggle/kaggle.json), or run `kaggle auth login`"
)

T = TypeVar("T")


class KaggleError(Failure):
    """A call to Kaggle failed; the message says why and what to do.

    Attributes:
        again: whether the same call may go well in a moment.
        pause: seconds that Kaggle asks to wait before it.
        passing: whether the cause is the network's or the server's, not ours.
        unsubmitted: whether it is certain that a push submitted nothing.
    """

    def __init__(
        self,
        message: str,
        again: bool = False,
        pause: float = 0.0,
        passing: bool = False,
        unsubmitted: bool = False,
    ) -> None:
        super().__init__(message)
        self.again = again
        self.pause = pause
        self.passing = passing or again
        self.unsubmitted = unsubmitted


@dataclass(frozen=True)
class Patience:
    """How long to wait, how often to try."""

    deadline: float = 60.0  # seconds for a call, besides what the bytes of a transfer take
    attempts: int = 5
    pause: float = 2.0  # seconds before the second attempt; doubled before each further one


@dataclass(frozen=True)
class Submission:
    """A submission as Kaggle lists it; the scores are text, empty while there are none."""

    ref: int
    date: str
    description: str
    status: str  # PENDING, COMPLETE, ERROR, or a word that Kaggle has invented since
    error: str
    public: str
    private: str


@dataclass(frozen=True)
class Allowance:
    """Submissions made today and ever, and how many are left; all 0 before the first."""

    today: int
    total: int
    left: int


class Kaggle:
    """Carvana at Kaggle. Every method raises KaggleError.

    Args:
        patience: deadline and attempts.
        say: called with a line to show before each further attempt.
    """

    def __init__(self, patience: Patience | None = None, say: Callable[[str], None] = print) -> None:
        self.patience = patience or Patience()
        self.say = say

    def submissions(self) -> list[Submission]:
        """The team's submissions, the latest first."""
        return [_submission(listed) for listed in self.retried(lambda: self._call("submissions"))]

    def allowance(self) -> Allowance:
        """How many submissions are left."""
        return Allowance(**self.retried(lambda: self._call("allowance")))

    def push(self, file: Path, description: str) -> int:
        """Upload and submit a file, in one attempt; returns the submission's ref, or 0 where Kaggle told none.

        After an error the submission may exist all the same: the reply may have been lost. Look before trying again.
        """
        size = file.stat().st_size
        return int(self._call("push", size, file=str(file.absolute()), description=description))

    def files(self) -> dict[str, int]:
        """The competition's files: name to size in bytes."""
        sizes: dict[str, int] = self.retried(lambda: self._call("files"))
        return sizes

    def download(self, name: str, size: int, path: Path) -> None:
        """Download a file of that size to a path; goes on where an earlier download broke off.

        As long as the attempts bring bytes there are more of them: ten gigabytes may take many connections.
        """
        while True:
            before = _size(path)
            try:
                self.retried(lambda: self._call("download", size, name=name, path=str(path.absolute())))
                return
            except KaggleError as error:
                if not error.passing or _size(path) <= before:
                    raise

    def retried(self, action: Callable[[], T]) -> T:
        """Do something until it succeeds, fails for good, or has been tried often enough."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return action()
            except KaggleError as error:
                if not error.again:
                    raise
                pause = max(error.pause, self.patience.pause * 2 ** (attempt - 1))
                if attempt >= self.patience.attempts or pause > LONGEST_PAUSE:
                    tried = f"{attempt} attempts" if attempt > 1 else "1 attempt"
                    message = f"{error}, after {tried}; type the same command again later"
                    raise KaggleError(message, passing=True) from error
                self.say(f"{error}; attempt {attempt + 1} of {self.patience.attempts} in {pause:.0f} s")
            time.sleep(pause)

    def _call(self, call: str, size: int = 0, **arguments: str) -> Any:
        """Make a call in a process of its own; ``size`` is the number of bytes that it moves."""
        seconds = self.patience.deadline + size / SLOWEST
        lifeline, ours = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "competition.kaggle.calls", str(lifeline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,  # progress bars, and nothing else
            text=True,
            env=_environment(),
            pass_fds=[lifeline],
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            os.close(lifeline)
            answer, _ = process.communicate(json.dumps({"call": call, "arguments": arguments}) + "\n", seconds)
        except subprocess.TimeoutExpired:
            raise KaggleError(
                f"Kaggle did not finish the call `{call}` within {seconds:.0f} s; see that the network works, then "
                "type the same command again (--deadline gives more time)",
                passing=True,
            ) from None
        finally:
            os.close(ours)
            process.kill()
            process.wait()
        if not answer:
            raise KaggleError(f"the call `{call}` to Kaggle was ended from outside; type the same command again")
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise _error(reply)
        return reply["result"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def add_patience_arguments(parser: ArgumentParser) -> None:
    """The options by which one says how long to wait for Kaggle."""
    usual = Patience()
    parser.add_argument("--deadline", type=float, default=usual.deadline, help="seconds for a call, besides transfer")
    parser.add_argument("--attempts", type=int, default=usual.attempts, help="how often a call is tried")
    parser.add_argument("--pause", type=float, default=usual.pause, help="seconds before the second attempt")


def patience(arguments: Namespace) -> Patience:
    """What a parser with ``add_patience_arguments`` parsed."""
    return Patience(arguments.deadline, max(1, arguments.attempts), arguments.pause)


def _environment() -> dict[str, str]:
    """Ours, so that credentials and proxies reach the call, but for what makes the client print them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VERBOSE")}
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _submission(listed: dict[str, Any]) -> Submission:
    return Submission(
        ref=int(listed["ref"]),
        date=str(listed.get("date") or ""),
        description=str(listed.get("description") or ""),
        status=str(listed.get("status") or "PENDING").upper().removeprefix("SUBMISSION_STATUS_"),
        error=" ".join(str(listed.get("errorDescription") or "").split()),
        public=str(listed.get("publicScore") or ""),
        private=str(listed.get("privateScore") or ""),
    )


def _error(reply: dict[str, Any]) -> KaggleError:
    """The error that an answer of ``kaggle.calls`` tells of."""
    kind, status, reason = reply["error"], reply.get("status"), reply.get("reason", "")
    if kind == "http":
        return _http_error(reply)
    if kind == "storage":
        if status is None or status == 429 or status >= 500:
            how = f"Kaggle's storage answers {status}" if status else "the connection broke"
            return KaggleError(f"the upload failed ({how}), nothing was submitted", again=True, unsubmitted=True)
        return KaggleError(
            f"Kaggle's storage refuses the upload ({status}), nothing was submitted; type the same command again, "
            "which asks for a new place"
        )
    if kind == "credentials":
        return KaggleError(_rejected(reply) if reply["token"] else NO_CREDENTIALS)
    sentences = {
        "link": KaggleError(f"the link to the file was refused ({status}); a new one is needed", again=True),
        "network": KaggleError(f"cannot reach Kaggle: {reason}", again=True),
        "disk": KaggleError(f"cannot write {reply.get('file')}: {reason}"),
        "unreadable": KaggleError(
            "the Kaggle credentials that were found cannot be read (KAGGLE_API_TOKEN, ~/.kaggle/access_token, "
            f"KAGGLE_KEY or ~/.kaggle/kaggle.json is damaged); put a new token from {TOKENS} in its place"
        ),
        "missing": KaggleError(f"the Python package {reason} is missing; make setup installs it"),
        "answer": KaggleError(
            f"Kaggle's answer is not understood ({reason}); is a login page or a proxy between? see {PAGE}"
        ),
    }
    return sentences.get(kind) or KaggleError(f"Kaggle's client failed unforeseen ({reason}); see {PAGE}")


def _http_error(reply: dict[str, Any]) -> KaggleError:
    """What an HTTP status means here."""
    status, pause = reply["status"], reply["retry_after"]
    says = f": {reply['message'].rstrip('.')}" if reply["message"] else ""
    if status == 401:
        return KaggleError(_rejected(reply))
    if status == 403:
        return KaggleError(
            f"Kaggle forbids this (403{says}); accept the rules on {PAGE}/rules, and verify your phone on "
            "https://www.kaggle.com/settings"
        )
    if status == 404:
        return KaggleError(f"Kaggle does not find this (404{says}); see that {PAGE} opens in a browser")
    if status == 429:
        return KaggleError(f"Kaggle asks to slow down (429), and to wait {pause:.0f} s", again=True, pause=pause)
    if status >= 500:
        return KaggleError(f"Kaggle is in trouble ({status}{says})", again=True, pause=pause)
    return KaggleError(f"Kaggle refuses ({status}{says}); see {PAGE}")


def _rejected(reply: dict[str, Any]) -> str:
    """What to do when the credentials are not taken."""
    token, keys = reply.get("token"), reply.get("keys")
    if token and keys:
        return (
            f"Kaggle rejects the token from {token}, which comes before the key from {keys}; remove the token, or "
            f"replace it by a new one from {TOKENS}"
        )
    if token:
        return f"Kaggle rejects the token from {token}; replace it by a new one from {TOKENS}"
    if keys:
        return f"Kaggle rejects the user name and key from {keys} (401); replace them by a new token from {TOKENS}"
    return f"Kaggle rejects the login (401); run `kaggle auth login`, or make a token on {TOKENS}"
