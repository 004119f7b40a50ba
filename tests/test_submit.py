"""Submitting with Kaggle's real client to a server on loopback: errors, interruptions, and no submission twice."""

import hashlib
import io
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kaggle_server import KEY, LOGIN, SIGNATURE, Fault, KaggleServer, until
from submittable import NAMES, SubmittableRun

from competition.command import run_command
from competition.files import sha256
from competition.startup import INTERRUPTION
from submissions import ledger, submission_file, submit
from submissions.ledger import Entry

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("in_process", "small_test_set")


class Workplace(SubmittableRun):
    """A run that can be submitted, and the command that does it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(root)
        self.capsys = capsys
        self.ledger = root / "ledger.csv"

    def predict_large(self) -> None:
        """Make the file larger than the buffer of a socket, so that a connection can break during the upload."""
        lengths = np.random.default_rng(1).integers(1, 20, (len(NAMES), 15_000))
        codes = [" ".join(f"{1 + 40 * span} {length}" for span, length in enumerate(row)) for row in lengths.tolist()]
        submission_file.write(self.file, zip(NAMES, codes, strict=True))
        self.record()

    def command(self, *more: str) -> list[str]:
        run = ["--run", str(self.folder.root), "--data", str(self.data), "--ledger", str(self.ledger)]
        quick = ["--message", "first", "--deadline", "60", "--attempts", "3", "--pause", "0.02", "--follow", "8"]
        return [*run, *quick, *more]

    def submit(self, *more: str) -> tuple[int, str, str]:
        """Exit status, output, and the error, which is at most one line."""
        status: int | str | None = 0
        try:
            run_command(lambda: submit.main(self.command(*more)))
        except SystemExit as ended:
            status = ended.code
        out, error = self.capsys.readouterr()
        assert error.count("\n") <= 1
        for secret in (KEY, SIGNATURE):
            assert secret not in out + error
        assert isinstance(status, int)
        return status, out, error.removeprefix("error: ").rstrip()

    def start(self) -> "subprocess.Popen[str]":
        """Start the command in a process of its own, as a shell does."""
        command = [sys.executable, "-m", "submissions.submit", *self.command("--force")]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def entries(self) -> list[Entry]:
        return ledger.read(self.ledger)


@pytest.fixture
def work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(tmp_path, capsys)


def test_from_the_file_to_the_score(server: KaggleServer, work: Workplace) -> None:
    server.pending = 2
    status, out, error = work.submit()
    assert (status, error) == (0, "")
    digest = sha256(work.file)
    [listed] = server.submissions
    assert listed["sha256"] == digest  # the uploaded bytes
    assert listed["description"] == f"first [sha256:{digest[:16]}]"
    assert work.entries == [
        Entry(
            date="2026-11-22T10:00:00.123Z",
            run="unet",
            sha256=digest,
            settings=hashlib.sha256(b"seed: 1\n").hexdigest()[:12],
            git=work.entries[0].git,
            cv_dice="0.99701",
            cv_iou="0.99404",
            folds="5",
            tta="identity+hflip",
            message="first",
            ref="1000",
            status="COMPLETE",
            public="0.99712",
            private="0.99693",
            error="",
        )
    ]
    assert re.sub(r"\(\d+ s\)", "(n s)", out).splitlines()[1:] == [
        "5 submissions left today, including this one",
        f"uploading {work.file} (0.0 MB)",
        f"submitted as ref 1000, recorded in {work.ledger}",
        "ref 1000: PENDING (n s)",
        "ref 1000 COMPLETE: public 0.99712, private 0.99693; CV 0.99701, CV - score +0.00008",
    ]
    # Again: the same file is not submitted twice.
    server.left = 0
    status, out, _ = work.submit("--force", "--message", "another")
    assert status == 0
    assert "Kaggle lists this file already as ref 1000: not uploaded again" in out
    assert "ref 1000 COMPLETE" in out
    assert len(server.submissions) == server.seen["upload"] == 1
    assert [entry.message for entry in work.entries] == ["first"]


def test_a_dry_run_needs_no_network_and_reads_each_record_once(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert work.submit("--dry-run")[0] == 0  # validates
    reads: Counter[str] = Counter()
    real_open = io.open

    def counting_open(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if str(file).endswith(".json") and "w" not in mode:
            reads[Path(file).name] += 1
        return real_open(file, mode, *more, **options)

    monkeypatch.setattr(io, "open", counting_open)  # what pathlib calls
    status, out, _ = work.submit("--dry-run")
    mark = sha256(work.file)[:16]
    assert (status, out) == (0, f"dry run: {work.file} would be submitted as 'first [sha256:{mark}]'\n")
    run = work.folder
    assert reads == {path.name: 1 for path in (run.environment, run.cv, run.submission_record, run.validated)}
    assert server.seen.total() == 0
    assert work.entries == []
    reads.clear()
    assert work.submit()[0] == 0
    assert set(reads.values()) == {1}


def test_an_error_at_kaggle_is_reported_and_recorded(server: KaggleServer, work: Workplace) -> None:
    server.outcome = {"status": "ERROR", "errorDescription": "Submission must have 100064 rows"}
    status, _, error = work.submit()
    assert status == 1
    assert error.startswith(
        "Kaggle could not score ref 1000: Submission must have 100064 rows; see https://www.kaggle"
    )
    assert [(entry.status, entry.error) for entry in work.entries] == [("ERROR", "Submission must have 100064 rows")]
    assert work.submit()[2] == error
    assert server.seen["upload"] == 1
    server.outcome = {"status": "COMPLETE", "publicScore": "0.5"}
    assert work.submit("--force")[0] == 0  # submits the file again
    assert [(entry.ref, entry.status) for entry in work.entries] == [("1000", "ERROR"), ("1001", "COMPLETE")]


@pytest.mark.parametrize("status", ["PENDING", "QUARANTINED"])
def test_a_submission_that_is_not_scored_in_time(server: KaggleServer, work: Workplace, status: str) -> None:
    server.outcome = {"status": status}
    exit_status, out, error = work.submit("--follow", "0.1")
    assert (exit_status, f"ref 1000: {status}" in out) == (1, True)
    assert re.fullmatch(
        rf"ref 1000 is submitted, but its status after \d+ s is {status}; check later with make submissions", error
    )
    assert [entry.status for entry in work.entries] == [status]


TEMPORARY = {
    "500 and 429": {"StartSubmissionUpload": [Fault(500), Fault(429, headers={"Retry-After": "0"})]},
    "storage 500, no limits": {"upload": [Fault(500), Fault(502)], "GetSubmissionLimits": [Fault(404)]},
    "reset in the upload": {"upload": [Fault(after=200_000)]},
    "503 at the end": {"CreateSubmission": [Fault(503)]},
    "lost reply": {"CreateSubmission": [Fault(lost=True)]},
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_temporary_error_costs_one_submission(server: KaggleServer, work: Workplace, name: str) -> None:
    server.faults = faults = {call: list(failing) for call, failing in TEMPORARY[name].items()}
    if name == "reset in the upload":
        work.predict_large()
    status, _, error = work.submit()
    assert (status, error) == (0, "")
    assert [listed["sha256"] for listed in server.submissions] == [sha256(work.file)]
    assert [entry.status for entry in work.entries] == ["COMPLETE"]
    assert not any(faults.values()), "not every fault has happened"


PERMANENT = {
    "403": ({"StartSubmissionUpload": [Fault(403, "Accept")]}, "Kaggle denied access (403: Accept)", 0),
    "storage 403": ({"upload": [Fault(403)]}, "Kaggle's storage rejected the upload (403), nothing was submitted", 1),
    "storage 500 for ever": ({"upload": [Fault(500), ...]}, "the upload failed (Kaggle's storage returned 500)", 2),
    "400": ({"CreateSubmission": [Fault(400, "Limit")]}, "Kaggle rejected the request (400: Limit)", 1),
    "500 for ever": ({"CreateSubmission": [Fault(500), ...]}, "Kaggle has a server error (500: no), after 2", 2),
}


@pytest.mark.parametrize(("faults", "expected", "uploads"), PERMANENT.values(), ids=PERMANENT)
def test_a_permanent_error_is_reported_and_leaves_no_entry(
    server: KaggleServer, work: Workplace, faults: dict[str, list[Fault]], expected: str, uploads: int
) -> None:
    server.faults = dict(faults)
    status, _, error = work.submit("--attempts", "2")
    assert (status, error[: len(expected)]) == (1, expected)
    assert (server.seen["upload"], work.entries) == (uploads, [])
    # If it is certain that nothing was submitted, the list is read only once per attempt.
    if "upload" in faults:
        assert server.seen["ListSubmissions"] == uploads
        assert not work.folder.pushing.exists()


def test_a_submission_that_was_not_listed_is_found_later(server: KaggleServer, work: Workplace) -> None:
    server.faults = {"CreateSubmission": [Fault(lost=True)], "ListSubmissions": [Fault(), Fault(404)]}
    assert work.submit()[0] == 1
    assert (len(server.submissions), work.entries) == (1, [])
    assert work.folder.pushing.exists()
    status, out, _ = work.submit()
    assert (status, "Kaggle lists this file already as ref 1000" in out) == (0, True)
    assert (len(server.submissions), len(work.entries)) == (1, 1)


REDIRECT = Fault(302, body=b"", headers={"Location": f"{LOGIN}/"})
NO_LIST = {
    "redirect to a page": (REDIRECT, b"<html>Log in</html>"),
    "redirect to JSON": (REDIRECT, b"{}"),
    "page": (Fault(body=b"<html>Log in</html>"), b""),
    "no key": (Fault(body=b'{"message": "Log in"}', headers={"Content-Type": "application/json"}), b""),
    "null": (Fault(body=b'{"submissions": null}'), b""),
}


@pytest.mark.parametrize(("reply", "login"), NO_LIST.values(), ids=NO_LIST)
def test_only_a_list_without_the_file_leads_to_an_upload(
    server: KaggleServer, work: Workplace, reply: Fault, login: bytes
) -> None:
    """The first command submits and does not hear of it; until the list can be read, no other one uploads."""
    server.login = login
    server.faults = {"CreateSubmission": [Fault(lost=True)], "ListSubmissions": [Fault(), *([reply] * 9)]}
    for _ in range(3):
        status, _, error = work.submit()
        assert (status, "Kaggle's reply cannot be read (" in error) == (1, True)
        assert (len(server.submissions), server.seen["upload"], work.entries) == (1, 1, [])
    server.faults = {}
    status, out, _ = work.submit()
    assert (status, "Kaggle lists this file already as ref 1000" in out) == (0, True)
    assert (len(server.submissions), server.seen["upload"], len(work.entries)) == (1, 1, 1)


@pytest.mark.parametrize("call", ["CreateSubmission", "StartSubmissionUpload", "GetSubmissionLimits"])
def test_a_login_page_during_the_upload_costs_one_submission(
    server: KaggleServer, work: Workplace, call: str
) -> None:
    server.faults = {call: [REDIRECT]}
    assert work.submit()[0] == 0
    assert len(server.submissions) == len(work.entries) == 1


@pytest.mark.parametrize("reply", [Fault(), Fault(lost=True)], ids=["reply", "lost reply"])
def test_a_list_that_lags_costs_no_second_submission(server: KaggleServer, work: Workplace, reply: Fault) -> None:
    server.lag = 2
    server.faults = {"CreateSubmission": [reply]}
    status, _, error = work.submit()
    assert (status, error) == (0, "")
    assert len(server.submissions) == server.seen["upload"] == len(work.entries) == 1


def test_a_file_that_changes_before_its_upload_is_rejected(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "require_allowance", lambda kaggle: work.predict("1 500000"))
    status, _, error = work.submit()
    assert (status, "has changed since it was validated; run the same command again" in error) == (1, True)
    assert (server.seen["CreateSubmission"], work.ledger.is_file()) == (0, False)


def test_force_submits_without_a_cv(server: KaggleServer, work: Workplace) -> None:
    work.folder.cv.unlink()
    work.folder.submission_record.unlink()
    assert work.submit()[0] == 1
    assert server.seen.total() == 0
    status, out, _ = work.submit("--force")
    assert (status, "; no CV" in out) == (0, True)
    assert [(entry.cv_dice, entry.folds, entry.tta) for entry in work.entries] == [("", "", "")]


def test_a_damaged_ledger_or_no_allowance_is_found_before_the_upload(server: KaggleServer, work: Workplace) -> None:
    server.left, server.today = 0, 5
    status, _, error = work.submit()
    expected = "no submission is left today (5 made); run the same command again after midnight UTC"
    assert (status, error, work.entries) == (1, expected, [])
    work.ledger.write_text("mine\n")
    status, _, error = work.submit()
    assert (status, "the header is 'mine', not" in error) == (1, True)
    assert (server.seen["StartSubmissionUpload"], work.ledger.read_text()) == (0, "mine\n")


def interrupt(command: "subprocess.Popen[str]") -> None:
    """Send Ctrl-C, and check how the command ends."""
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert command.stderr is not None
    assert command.stderr.read().strip() == INTERRUPTION


def test_ctrl_c_during_the_upload_and_a_second_command(server: KaggleServer, work: Workplace) -> None:
    server.faults = {"upload": [Fault(hang=True)]}
    with work.start() as command:
        until(lambda: server.seen["upload"] == 1)
        status, _, error = work.submit()
        assert (status, "another submission is being uploaded" in error) == (1, True)
        interrupt(command)
    assert work.submit()[0] == 0
    assert (len(server.submissions), [entry.status for entry in work.entries]) == (1, ["COMPLETE"])


def test_ctrl_c_while_waiting_for_the_score(server: KaggleServer, work: Workplace) -> None:
    server.pending = 1000
    work.submit("--follow", "0")
    before = server.seen["ListSubmissions"]
    with work.start() as command:
        until(lambda: server.seen["ListSubmissions"] == before + 2)
        interrupt(command)
    server.pending = 0
    assert work.submit()[0] == 0
    assert (len(server.submissions), [entry.status for entry in work.entries]) == (1, ["COMPLETE"])


def test_a_killed_push_is_found_in_a_list_that_lags(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = server.CreateSubmission

    def create_without_reply(body: dict[str, Any]) -> dict[str, Any]:
        reply = create(body)
        server.released.wait(60)
        return reply

    server.lag = 2
    with monkeypatch.context() as patched, work.start() as command:
        patched.setattr(server, "CreateSubmission", create_without_reply)
        until(lambda: server.submissions != [])
        command.kill()
    assert work.submit()[0] == 0
    assert len(server.submissions) == len(work.entries) == 1
    assert not work.folder.pushing.exists()
