"""Kaggle with deadlines and retries.

Every call runs in a process of its own (``calls.py``), which is killed at its deadline. Broken connections and the
statuses 429 and 5xx are retried after a pause; other errors are not.
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

from competition.kaggle.credentials import cleaned
from competition.kaggle.errors import KaggleError

ROOT = Path(__file__).resolve().parents[2]
SLOWEST = 100_000  # bytes per second; the slowest transfer that a deadline allows for
LONGEST_PAUSE = 600.0  # seconds; if Kaggle asks for a longer one, the command fails

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long a call may take and how often it is attempted."""

    deadline: float = 60.0  # seconds for a call, plus the time for the bytes of a transfer
    attempts: int = 5
    pause: float = 2.0  # seconds before the second attempt; doubled before each further one


@dataclass(frozen=True)
class Submission:
    """A submission in Kaggle's list; the scores are text, empty until it is scored."""

    ref: int
    date: str  # UTC, ISO 8601
    description: str
    status: str  # PENDING, COMPLETE, ERROR, or a new one of Kaggle's
    error: str
    public: str
    private: str


@dataclass(frozen=True)
class Allowance:
    """The number of submissions made today, made in total, and allowed now; all 0 before a team's first one."""

    today: int
    total: int
    left: int


class Kaggle:
    """The Carvana competition at Kaggle. Every method raises KaggleError.

    Args:
        policy: deadline and retries.
        log: called with one line before each retry.
    """

    def __init__(self, policy: RetryPolicy | None = None, log: Callable[[str], None] = print) -> None:
        self.policy = policy or RetryPolicy()
        self.log = log

    def submissions(self) -> list[Submission]:
        """The team's submissions, the latest first."""
        return [_submission(listed) for listed in self.with_retries(lambda: self._call("submissions"))]

    def allowance(self) -> Allowance:
        """How many submissions are left."""
        return Allowance(**self.with_retries(lambda: self._call("allowance")))

    def push(self, file: Path, description: str) -> int:
        """Upload and submit a file in one attempt; returns the submission's ref, or 0 if Kaggle returned none.

        After an error the submission may exist, because only the reply was lost: read the list before a retry.
        """
        size = file.stat().st_size
        return int(self._call("push", size, file=str(file.absolute()), description=description))

    def files(self) -> dict[str, int]:
        """The competition's files: name to size in bytes."""
        sizes: dict[str, int] = self.with_retries(lambda: self._call("files"))
        return sizes

    def download(self, name: str, size: int, path: Path) -> None:
        """Download a file of ``size`` bytes to a path; resumes an earlier download.

        The attempts start again whenever one has brought new bytes: 10 GB may take many connections.
        """
        while True:
            before = _size(path)
            try:
                self.with_retries(
                    lambda: self._call("download", size, name=name, path=str(path.absolute()), size=str(size))
                )
                return
            except KaggleError as error:
                if not error.transient or _size(path) <= before:
                    raise

    def with_retries(self, action: Callable[[], T]) -> T:
        """Call ``action``; after an error that allows it, pause and call it again."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return action()
            except KaggleError as error:
                if not error.retry:
                    raise
                pause = max(error.pause, self.policy.pause * 2 ** (attempt - 1))
                if attempt >= self.policy.attempts or pause > LONGEST_PAUSE:
                    count = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                    message = f"{error}, after {count}; run the same command again later"
                    raise KaggleError(message, transient=True) from error
                self.log(f"{error}; attempt {attempt + 1} of {self.policy.attempts} in {pause:.0f} s")
            time.sleep(pause)

    def _call(self, call: str, transfer: int = 0, /, **arguments: str) -> Any:
        """Make a call that transfers that many bytes, and return its result."""
        reply = run_call(call, arguments, self.policy.deadline + transfer / SLOWEST)
        if "error" in reply:
            raise KaggleError(**reply["error"])
        return reply["result"]


def run_call(call: str, arguments: dict[str, str], seconds: float) -> dict[str, Any]:
    """Make a call in a process of its own and return its reply; kill the process after that many seconds."""
    child_pipe, our_pipe = os.pipe()  # closes when this process ends, which ends the call
    process = subprocess.Popen(
        [sys.executable, "-m", "competition.kaggle.calls", str(child_pipe)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,  # only for progress bars
        text=True,
        env=_environment(),
        pass_fds=[child_pipe],
        start_new_session=True,  # this process handles Ctrl-C
    )
    try:
        os.close(child_pipe)
        output, _ = process.communicate(json.dumps({"call": call, "arguments": arguments}) + "\n", seconds)
    except subprocess.TimeoutExpired:
        raise KaggleError(
            f"Kaggle did not finish the call `{call}` within {seconds:.0f} s; check the network, then run the same "
            "command again (--deadline allows more time)",
            transient=True,
        ) from None
    finally:
        os.close(our_pipe)
        process.kill()
        process.wait()
    if not output:
        raise KaggleError(f"the process of the Kaggle call `{call}` was killed; run the same command again")
    reply: dict[str, Any] = json.loads(output)
    return reply


def add_retry_arguments(parser: ArgumentParser) -> None:
    """Add the options for the deadline and the retries of Kaggle calls."""
    default = RetryPolicy()
    parser.add_argument("--deadline", type=float, default=default.deadline, help="seconds for a call, plus transfer")
    parser.add_argument("--attempts", type=int, default=default.attempts, help="maximum number of attempts of a call")
    parser.add_argument("--pause", type=float, default=default.pause, help="seconds before the second attempt")


def retry_policy(options: Namespace) -> RetryPolicy:
    """The policy given by the options of ``add_retry_arguments``."""
    return RetryPolicy(options.deadline, max(1, options.attempts), options.pause)


def _environment() -> dict[str, str]:
    """This process's environment (proxies, clean credentials) without VERBOSE: the client would print them."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("VERBOSE")}
    environment = cleaned(given)
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
