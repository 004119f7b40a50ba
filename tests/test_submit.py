"""Submitting, through Kaggle's real client to a server on loopback, whatever goes wrong on the way."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kaggle_server import KEY, SIGNATURE, Fault, KaggleServer

from competition.command import INTERRUPTION, run_command
from competition.files import sha256
from competition.kaggle.client import Kaggle, Patience
from submissions import ledger, submission_file, submit
from submissions.ledger import Entry

ROOT = Path(__file__).parent.parent
NAMES = [f"0cdf5b5d0ce1_{view:02d}.jpg" for view in range(1, 17)]
CODE = "1 400000"  # 16 % of Carvana's picture


class Workplace:
    """A run that can be submitted, and the command that does it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.run, self.data, self.ledger = root / "runs" / "unet", root / "data", root / "ledger.csv"
        self.data.mkdir()
        submission_file.write(self.data / "sample_submission.csv", ((name, "1 1") for name in NAMES))
        self.file = self.run / "submission.csv.gz"
        submission_file.write(self.file, ((name, CODE) for name in NAMES))
        (self.run / "settings.yaml").write_text("seed: 1\n")
        folds = [{"fold": fold, "images": 8, "dice": 0.997, "iou": 0.994} for fold in range(5)]
        cv = {"dice": 0.99701, "iou": 0.99404, "folds": folds, "threshold": 0.5, "views": ["identity", "hflip"]}
        (self.run / "cv.json").write_text(json.dumps(cv))
        self.predicted()

    def predicted(self, **other: object) -> None:
        """Note beside the file what made it, as make predict does: what the CV scored, but for what is named."""
        facts = {"folds": 5, "views": ["identity", "hflip"], "weights": {str(self.run): 1.0}, "threshold": 0.5}
        record = {"key": "k", **facts, "checkpoints": {}, "sha256": sha256(self.file), **other}
        (self.run / "submission.json").write_text(json.dumps(record))

    def answer(self, rows: Iterable[tuple[str, str]]) -> None:
        """Predict something else."""
        submission_file.write(self.file, rows)
        self.predicted()

    def make_long(self) -> None:
        """Make the file longer than what a socket holds: a connection can then break while it is being sent."""
        lengths = np.random.default_rng(1).integers(1, 20, (len(NAMES), 15_000))
        codes = [" ".join(f"{1 + 40 * run} {length}" for run, length in enumerate(row)) for row in lengths.tolist()]
        self.answer(zip(NAMES, codes, strict=True))

    def command(self, *more: str) -> list[str]:
        run = ["--run", str(self.run), "--data", str(self.data), "--ledger", str(self.ledger)]
        quick = ["--message", "first", "--deadline", "60", "--attempts", "3", "--pause", "0.05", "--follow", "8"]
        return [*run, *quick, *more]

    def submit(self, *more: str) -> tuple[int, str, str]:
        """Exit status, output, and what is said on standard error, which is one line at most."""
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

    @property
    def entries(self) -> list[Entry]:
        return ledger.read(self.ledger)


@pytest.fixture
def work(tmp_path: Path, server: KaggleServer, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(tmp_path, capsys)


def test_from_the_file_to_the_score(server: KaggleServer, work: Workplace) -> None:
    server.pending = 2
    status, out, error = work.submit()
    assert (status, error) == (0, "")
    digest = sha256(work.file)
    [listed] = server.submissions
    assert listed["sha256"] == digest  # what arrived is what was sent
    assert listed["description"] == f"first [sha256:{sha256[:16]}]"
    assert work.entries == [
        Entry(
            when="2026-11-22T10:00:00.123Z",
            run="unet",
            sha256=sha256,
            settings=hashlib.sha256(b"seed: 1\n").hexdigest()[:12],
            git=work.entries[0].git,
            cv_dice="0.99701",
            cv_iou="0.99404",
            folds="5",
            views="identity+hflip",
            message="first",
            ref="1000",
            status="COMPLETE",
            public="0.99712",
            private="0.99693",
            error="",
        )
    ]
    assert re.sub(r"\(\d+ s\)", "(n s)", out).splitlines()[1:] == [
        "5 submissions left today, with this one",
        f"uploading {work.file} (0.0 MB)",
        f"submitted as ref 1000, noted in {work.ledger}",
        "ref 1000: PENDING (n s)",
        "ref 1000 COMPLETE: public 0.99712, private 0.99693; CV 0.99701, CV - score +0.00008",
    ]


def test_the_same_file_is_never_submitted_twice(server: KaggleServer, work: Workplace) -> None:
    assert work.submit()[0] == 0
    server.left = 0
    status, out, _ = work.submit("--force", "--message", "another")
    assert status == 0
    assert "Kaggle lists this very file as ref 1000: it is not uploaded again" in out
    assert "ref 1000 COMPLETE" in out
    assert len(server.submissions) == server.seen["upload"] == 1
    assert [entry.message for entry in work.entries] == ["first"]


def test_an_error_of_kaggles_is_told_and_noted(server: KaggleServer, work: Workplace) -> None:
    server.outcome = {"status": "ERROR", "errorDescription": "Submission must have 100064 rows"}
    status, _, error = work.submit()
    assert status == 1
    assert error.startswith(
        "Kaggle could not score ref 1000: Submission must have 100064 rows; see https://www.kaggle"
    )
    assert [(entry.status, entry.error) for entry in work.entries] == [("ERROR", "Submission must have 100064 rows")]
    assert work.submit()[2] == error  # the same file ends the same
    assert server.seen["upload"] == 1
    server.outcome = {"status": "COMPLETE", "publicScore": "0.5"}
    assert work.submit("--force")[0] == 0  # unless one insists
    assert [(entry.ref, entry.status) for entry in work.entries] == [("1000", "ERROR"), ("1001", "COMPLETE")]


def test_pending_for_too_long_is_taken_up_again(
    server: KaggleServer, work: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    server.pending = 1000
    status, _, error = work.submit("--follow", "0")
    assert status == 1
    assert re.fullmatch(r"ref 1000 is submitted, and after \d+ s its state is PENDING; make submissions.*", error)
    assert [entry.status for entry in work.entries] == ["PENDING"]
    server.pending = 0
    ledger.main(["--ledger", str(work.ledger)])
    assert "+0.00008    COMPLETE  1000" in capsys.readouterr().out
    assert [entry.status for entry in work.entries] == ["COMPLETE"]


def test_an_unknown_status_is_shown_and_followed(server: KaggleServer, work: Workplace) -> None:
    server.outcome = {"status": "QUARANTINED"}
    status, out, error = work.submit("--follow", "0.5")
    assert (status, "ref 1000: QUARANTINED" in out) == (1, True)
    assert "its state is QUARANTINED" in error
    assert [entry.status for entry in work.entries] == ["QUARANTINED"]


@pytest.mark.parametrize(
    "faults",
    [
        {"StartSubmissionUpload": [Fault(500), Fault(429, headers={"Retry-After": "0"})]},
        {"upload": [Fault(500), Fault(502)], "GetSubmissionLimits": [Fault(404)]},
        {"upload": [Fault(after=200_000)]},
        {"CreateSubmission": [Fault(503)]},
        {"CreateSubmission": [Fault(lost=True)]},
    ],
    ids=["500 and 429", "storage 500, no limits", "reset in the upload", "503 at the end", "lost reply"],
)
def test_trouble_that_passes_spends_one_submission(
    server: KaggleServer, work: Workplace, faults: dict[str, list[Fault]]
) -> None:
    server.faults = faults
    if any(fault.after for fault in faults.get("upload", [])):
        work.make_long()
    status, _, error = work.submit()
    assert (status, error) == (0, "")
    assert [listed["sha256"] for listed in server.submissions] == [sha256(work.file)]
    assert [entry.status for entry in work.entries] == ["COMPLETE"]
    assert not any(faults.values())  # every fault has happened


@pytest.mark.parametrize(
    ("faults", "expected", "uploads"),
    [
        (
            {"StartSubmissionUpload": [Fault(403, "Accept the rules")]},
            "Kaggle forbids this (403: Accept the rules)",
            0,
        ),
        ({"upload": [Fault(403)]}, "Kaggle's storage refuses the upload (403), nothing was submitted", 1),
        (
            {"upload": [Fault(500), ...]},
            "the upload failed (Kaggle's storage answers 500), nothing was submitted, after 2 at",
            2,
        ),
        (
            {"CreateSubmission": [Fault(400, "Your team has used its daily allowance (5)")]},
            "Kaggle refuses (400: Your",
            1,
        ),
        (
            {"CreateSubmission": [Fault(500), ...]},
            "Kaggle is in trouble (500: no), after 2 attempts; type the same",
            2,
        ),
    ],
    ids=["403", "storage 403", "storage 500 for ever", "400", "500 for ever"],
)
def test_trouble_that_stays_is_told_and_leaves_no_entry(
    server: KaggleServer, work: Workplace, faults: dict[str, list[Fault]], expected: str, uploads: int
) -> None:
    server.faults = faults
    status, _, error = work.submit("--attempts", "2")
    assert (status, error[: len(expected)]) == (1, expected)
    assert (server.seen["upload"], work.entries) == (uploads, [])


def test_a_submission_that_was_not_seen_to_exist_is_found_later(server: KaggleServer, work: Workplace) -> None:
    server.faults = {"CreateSubmission": [Fault(lost=True)], "ListSubmissions": [Fault(), Fault(404)]}
    assert work.submit()[0] == 1
    assert (len(server.submissions), work.entries) == (1, [])
    status, out, _ = work.submit()
    assert (status, "Kaggle lists this very file as ref 1000" in out) == (0, True)
    assert (len(server.submissions), len(work.entries)) == (1, 1)


@pytest.mark.parametrize("reply", [Fault(), Fault(lost=True)], ids=["told", "lost reply"])
def test_a_list_that_lags_behind_spends_no_second_submission(
    server: KaggleServer, work: Workplace, reply: Fault
) -> None:
    server.lag = 2
    server.faults = {"CreateSubmission": [reply]}
    status, _, error = work.submit()
    assert (status, error) == (0, "")
    assert len(server.submissions) == server.seen["upload"] == len(work.entries) == 1


def test_after_a_refusal_of_the_storage_the_list_need_not_be_waited_for(
    server: KaggleServer, work: Workplace
) -> None:
    server.faults = {"upload": [Fault(500), ...]}
    assert work.submit()[0] == 1
    assert server.seen["ListSubmissions"] == server.seen["upload"] == 3


def test_a_reset_for_ever_and_a_hang_end_at_the_deadline(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Kaggle.push

    def hasty_push(kaggle: Kaggle, file: Path, description: str) -> int:
        return push(Kaggle(Patience(deadline=3)), file, description)

    monkeypatch.setattr(Kaggle, "push", hasty_push)
    monkeypatch.setattr("competition.kaggle.client.SLOWEST", 1e9)  # the file's size gives no time
    work.make_long()
    for fault in (Fault(after=200_000), Fault(hang=True)):
        server.faults = {"upload": [fault, ...]}
        status, _, error = work.submit()
        expected = "Kaggle did not finish the call `push` within 3 s; see that the network works"
        assert (status, error[: len(expected)]) == (1, expected)
    assert (server.submissions, work.entries) == ([], [])


def test_the_daily_limit_is_known_before_the_upload(server: KaggleServer, work: Workplace) -> None:
    server.left, server.today = 0, 5
    status, _, error = work.submit()
    expected = "no submission is left today (5 made); type the same command again after midnight UTC"
    assert (status, error) == (1, expected)
    assert (server.seen["StartSubmissionUpload"], work.entries) == (0, [])


def test_a_file_changed_since_it_was_validated_is_refused(server: KaggleServer, work: Workplace) -> None:
    assert work.submit("--dry-run")[0] == 0  # which validates
    work.answer((name, "1 500000") for name in NAMES)
    status, _, error = work.submit()
    assert status == 1
    reason = f"is not the file that was validated; make validate RUN={work.run} looks at this one, FORCE=1 does so"
    assert reason in error
    assert sum(server.seen.values()) == 0
    status, out, _ = work.submit("--force", "--dry-run")
    assert (status, "is a valid submission" in out) == (0, True)


def test_a_file_that_changes_before_its_upload_is_refused(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_kaggle: Kaggle) -> None:
        work.answer((name, "1 500000") for name in NAMES)

    monkeypatch.setattr(submit, "_require_allowance", meanwhile)
    status, _, error = work.submit()
    assert (status, "has changed since it was validated; type the same command again" in error) == (1, True)
    assert (server.seen["CreateSubmission"], work.ledger.is_file()) == (0, False)


def test_an_invalid_file_is_refused_even_by_force(server: KaggleServer, work: Workplace) -> None:
    work.answer((name, CODE) for name in NAMES[1:])
    for more in ([], ["--force"]):
        status, out, error = work.submit(*more)
        assert (status, "is not a valid submission (1 x missing name" in error) == (1, True)
        assert f"no row for {NAMES[0]}" in out
    assert sum(server.seen.values()) == 0


def test_empty_masks_and_a_missing_cv_need_force(server: KaggleServer, work: Workplace) -> None:
    (work.run / "cv.json").unlink()
    assert (
        work.submit("--dry-run")[2]
        == f"run unet has no CV to compare the score with; make cv RUN={work.run}, or add FORCE=1"
    )
    work.answer((name, "") for name in NAMES)
    status, out, _ = work.submit("--force")
    assert (status, "; no CV" in out) == (0, True)
    assert [(entry.cv_dice, entry.folds, entry.views) for entry in work.entries] == [("", "5", "identity+hflip")]


def test_force_stands_for_one_call(server: KaggleServer, work: Workplace) -> None:
    work.answer((name, "") for name in NAMES)
    assert work.submit("--force", "--dry-run")[0] == 0
    status, _, error = work.submit()
    assert (status, "is not a valid submission" in error, server.seen["upload"]) == (1, True, 0)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"views": ["identity", "hflip", "vflip"]}, "views identity+hflip+vflip, there identity+hflip"),
        ({"threshold": 0.45}, "threshold 0.450, there 0.500"),
        ({"weights": {"runs/a": 0.5, "runs/b": 0.5}}, "weights {'runs/a': 0.5, 'runs/b': 0.5}, there one run"),
    ],
    ids=["views", "threshold", "weights"],
)
def test_what_the_cv_did_not_score_needs_force(
    server: KaggleServer, work: Workplace, other: dict[str, object], difference: str
) -> None:
    work.predicted(**other)
    status, _, error = work.submit()
    assert (status, error) == (
        1,
        f"{work.file} is not what {work.run / 'cv.json'} scored: {difference}; make predict RUN={work.run} or make "
        f"score RUN={work.run} again, the two with the same SET, or add FORCE=1",
    )
    assert sum(server.seen.values()) == 0
    assert work.submit("--force")[0] == 0
    views = other.get("views", ["identity", "hflip"])
    assert isinstance(views, list)
    assert [(entry.folds, entry.views) for entry in work.entries] == [("5", "+".join(views))]


def test_what_the_cv_scored_may_be_said_in_another_way(work: Workplace) -> None:
    """Views in another order, a threshold between the same levels, and a run of weight 0 that was not predicted."""
    cv = json.loads((work.run / "cv.json").read_text()) | {"weights": {"runs/a": 1.0, "runs/b": 0.0}}
    (work.run / "cv.json").write_text(json.dumps(cv | {"threshold": 77 / 255}))
    work.predicted(views=["hflip", "identity"], threshold=0.3, weights={"runs/a": 1.0})
    assert work.submit("--dry-run")[::2] == (0, "")
    work.predicted(views=["hflip", "identity"], threshold=0.3, weights={"runs/b": 1.0})
    assert "weights {'runs/b': 1.0}, there {'runs/a': 1.0}" in work.submit("--dry-run")[2]


def test_a_submission_of_networks_that_were_trained_anew_needs_force(work: Workplace) -> None:
    best = work.run / "fold0" / "best.safetensors"
    best.parent.mkdir()
    best.write_text("trained")
    work.predicted(checkpoints={str(best): sha256(best), str(work.run / "gone"): "0"})
    assert work.submit("--dry-run")[0] == 0
    best.write_text("trained anew")
    assert f"scored: {best} has been trained since; make predict RUN={work.run}" in work.submit("--dry-run")[2]
    assert work.submit("--dry-run", "--force")[0] == 0


def test_a_submission_of_networks_that_were_not_scored_needs_force(work: Workplace) -> None:
    """Trained anew and predicted, but not scored: the CV is that of the networks before."""
    cv = json.loads((work.run / "cv.json").read_text())
    (work.run / "cv.json").write_text(json.dumps(cv | {"checkpoints": {"runs/a": "1", "runs/b": "2"}}))
    work.predicted(checkpoints={"moved/b": "2"})
    assert work.submit("--dry-run")[0] == 0
    work.predicted(checkpoints={"runs/a": "3"})
    assert "runs/a is of another training than the one that was scored; make predict" in work.submit("--dry-run")[2]
    assert work.submit("--dry-run", "--force")[0] == 0


@pytest.mark.parametrize("lacking", ["the hash", "a fact", "all"])
def test_what_made_another_file_says_nothing_of_this_one(server: KaggleServer, work: Workplace, lacking: str) -> None:
    work.predicted(**{"sha256": "0" * 64} if lacking == "the hash" else {})
    if lacking == "a fact":  # as earlier versions wrote it
        record = work.run / "submission.json"
        told = json.loads(record.read_text())
        record.write_text(json.dumps({name: fact for name, fact in told.items() if name != "checkpoints"}))
    if lacking == "all":
        (work.run / "submission.json").unlink()
    status, _, error = work.submit()
    assert (status, error) == (
        1,
        f"{work.run / 'submission.json'} does not tell what made {work.file}; make predict RUN={work.run} writes "
        "both, FORCE=1 submits the file as it is",
    )
    assert work.submit("--force")[0] == 0
    assert [(entry.folds, entry.views) for entry in work.entries] == [("", "")]


def test_a_dry_run_needs_no_network(server: KaggleServer, work: Workplace) -> None:
    status, out, _ = work.submit("--dry-run")
    mark = sha256(work.file)[:16]
    assert (status, out.splitlines()[1:]) == (
        0,
        [f"dry run: {work.file} would be submitted as 'first [sha256:{mark}]'"],
    )
    assert sum(server.seen.values()) == 0
    assert work.entries == []


def test_a_message_is_needed_and_may_be_long(server: KaggleServer, work: Workplace) -> None:
    status, _, error = work.submit("--message", " \n")
    assert (status, error) == (1, 'a submission needs words to know it by; add MESSAGE="what is new"')
    out = work.submit("--message", "long " * 100, "--dry-run")[1]
    assert f"as '{'long ' * 40} [sha256:{sha256(work.file)[:16]}]'" in out


def test_a_damaged_ledger_is_found_before_the_upload(server: KaggleServer, work: Workplace) -> None:
    work.ledger.write_text("mine\n")
    status, _, error = work.submit()
    assert (status, "the columns are not" in error) == (1, True)
    assert (server.seen["upload"], work.ledger.read_text()) == (0, "mine\n")


def test_two_submits_at_once_make_one_submission(server: KaggleServer, work: Workplace) -> None:
    server.faults = {"upload": [Fault(hang=True)]}
    with start(work) as first:
        until(lambda: server.seen["upload"] == 1)
        status, _, error = work.submit()
        assert (status, "another submission is under way" in error) == (1, True)
        first.terminate()
    assert work.submit()[0] == 0
    assert len(server.submissions) == len(work.entries) == 1


@pytest.mark.parametrize("stage", ["ListSubmissions", "upload", "CreateSubmission", "follow"])
def test_ctrl_c_at_each_stage_and_then_the_same_command(server: KaggleServer, work: Workplace, stage: str) -> None:
    reached = "CreateSubmission" if stage == "follow" else stage
    server.faults = {} if stage == "follow" else {stage: [Fault(hang=True)]}
    server.pending = 1000
    with start(work) as command:
        until(lambda: server.seen[reached] == 1 and (stage != "follow" or work.entries != []))
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 130
        assert command.stderr is not None
        assert command.stderr.read().strip() == INTERRUPTION
    server.pending = 0
    assert work.submit()[0] == 0
    assert (len(server.submissions), [entry.status for entry in work.entries]) == (1, ["COMPLETE"])


def test_a_killed_push_is_looked_for_in_a_list_that_lags(
    server: KaggleServer, work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = server.CreateSubmission

    def taken_and_not_answered(body: dict[str, Any]) -> dict[str, Any]:
        answer = create(body)
        server.released.wait(60)
        return answer

    server.lag = 2
    with monkeypatch.context() as patched, start(work) as command:
        patched.setattr(server, "CreateSubmission", taken_and_not_answered)
        until(lambda: server.submissions != [])
        command.kill()
    assert work.submit()[0] == 0
    assert len(server.submissions) == len(work.entries) == 1
    assert not (work.run / "submission.pushing.json").exists()


def start(work: Workplace) -> "subprocess.Popen[str]":
    """The command in a process of its own, as a shell starts it."""
    command = [sys.executable, "-m", "submissions.submit", *work.command()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
