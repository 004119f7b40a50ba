"""Validate a run's submission, push it to Kaggle, follow it until it is scored, record it: ``make submit``.

Kaggle allows five submissions a day, and an upload takes long. Therefore the description contains the file's hash,
and Kaggle's list is searched for it before every attempt: a lost reply never costs a second submission. If the
command is interrupted, run it again; it resumes.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from competition.command import Failure, parser, run_command
from competition.files import held, sha256
from competition.hint import hint
from competition.kaggle.client import Kaggle, Submission, add_retry_arguments, retry_policy
from competition.kaggle.errors import PAGE, KaggleError
from competition.run.environment import git_revision
from competition.run.folder import run_at
from competition.run.records import Pushing
from submissions import ledger
from submissions.candidate import Candidate, prepare
from submissions.ledger import Entry

POLL_FIRST, POLL_LAST = 2.0, 30.0  # seconds between two looks at the list: the first and the longest interval


class Push:
    """A candidate on its way to Kaggle.

    Args:
        candidate: what to submit.
        kaggle: the client.
        resubmit: submit the file again if all its submissions ended in ERROR. A scored file is never submitted again.
    """

    def __init__(self, candidate: Candidate, kaggle: Kaggle, resubmit: bool) -> None:
        self.candidate = candidate
        self.kaggle = kaggle
        self.record = candidate.run.pushing
        begun = Pushing.read_if_exists(self.record)
        # An earlier attempt failed or was killed, and may have submitted the file.
        self.uncertain = begun is not None and begun.sha256 == candidate.sha256
        self.failed: set[int] = set()  # refs that do not count
        if resubmit:
            self.failed = {listed.ref for listed in self.marked() if listed.status == "ERROR"}

    def attempt(self) -> Submission | None:
        """Find the file in Kaggle's list, or upload it and then find it; None if Kaggle does not list it."""
        listed = self.find_patiently() if self.uncertain else self.find()
        if listed:
            print(f"Kaggle lists this file already as ref {listed.ref}: not uploaded again")
            return listed
        require_allowance(self.kaggle)
        file = self.candidate.file
        if sha256(file) != self.candidate.sha256:
            raise Failure(f"{file} has changed since it was validated; run the same command again")
        print(f"uploading {file} ({file.stat().st_size / 1e6:,.1f} MB)", flush=True)
        Pushing(sha256=self.candidate.sha256).write(self.record)
        try:
            self.kaggle.push(file, self.candidate.description)
        except KaggleError as error:
            self.uncertain = self.uncertain or not error.unsubmitted
            if not self.uncertain:
                self.record.unlink()
            raise
        return self.find_patiently()

    def find_patiently(self) -> Submission | None:
        """Look several times: a new submission may be missing in Kaggle's list for some seconds."""
        policy = self.kaggle.policy
        listed = self.find()
        for look in range(policy.attempts - 1):
            if listed:
                break
            time.sleep(policy.pause * 2**look)
            listed = self.find()
        return listed

    def find(self) -> Submission | None:
        """The latest submission of this file in Kaggle's list."""
        return next((listed for listed in self.marked() if listed.ref not in self.failed), None)

    def marked(self) -> list[Submission]:
        """All submissions of this file in Kaggle's list."""
        return [listed for listed in self.kaggle.submissions() if self.candidate.mark in listed.description]


def push(candidate: Candidate, kaggle: Kaggle, resubmit: bool = False) -> Submission:
    """Submit a file unless Kaggle lists it already; returns the submission as listed. Arguments as for ``Push``."""
    pushing = Push(candidate, kaggle, resubmit)
    listed = kaggle.with_retries(pushing.attempt)
    if listed is None:
        raise KaggleError(
            f"the upload succeeded, but Kaggle does not list {candidate.mark}; look at {PAGE}/submissions, and if it "
            "is not there after some minutes, run the same command again"
        )
    pushing.record.unlink(missing_ok=True)
    return listed


def require_allowance(kaggle: Kaggle) -> None:
    """Raise a Failure if no submission is left today; if Kaggle does not say, continue."""
    try:
        allowance = kaggle.allowance()
    except KaggleError as error:
        if error.transient:
            raise
        print(f"cannot tell how many submissions are left today: {error}")
        return
    if allowance.left <= 0 and allowance.total > 0:  # all are 0 before a team's first submission
        raise Failure(
            f"no submission is left today ({allowance.today} made); run the same command again after midnight UTC"
        )
    if allowance.left > 0:
        print(f"{allowance.left} submissions left today, including this one")


def follow(ref: int, kaggle: Kaggle, seconds: float) -> Submission:
    """Wait until a submission is COMPLETE or ERROR; raises KaggleError if it is neither after that many seconds."""
    start, shown, pause = time.monotonic(), "", min(POLL_FIRST, kaggle.policy.pause)
    while True:
        try:
            listed = next((listed for listed in kaggle.submissions() if listed.ref == ref), None)
            status = listed.status if listed else "not listed"
            if listed and status in ledger.FINAL:
                return listed
        except KaggleError as error:
            if not error.transient:
                raise
            status = f"unknown ({error})"
        waited = time.monotonic() - start
        if status != shown:
            print(f"ref {ref}: {status} ({waited:.0f} s)", flush=True)
            shown = status
        if waited + pause > seconds:
            raise KaggleError(
                f"ref {ref} is submitted, but its status after {waited:.0f} s is {status}; check later with "
                "make submissions"
            )
        time.sleep(pause)
        pause = min(pause * 1.3, POLL_LAST)


def new_entry(candidate: Candidate, listed: Submission) -> Entry:
    """The ledger's entry of a new submission."""
    run, cv, made_by = candidate.run, candidate.cv, candidate.made_by
    settings = hashlib.sha256(run.settings.read_bytes()).hexdigest()[:12] if run.settings.is_file() else ""
    return Entry(
        date=listed.date,
        run=run.name,
        sha256=candidate.sha256,
        settings=settings,
        git=git_revision() or "",
        cv_dice=str(cv.dice) if cv else "",
        cv_iou=str(cv.iou) if cv else "",
        folds=str(made_by.folds) if made_by else "",
        tta="+".join(made_by.tta) if made_by else "",
        message=candidate.message,
        ref=str(listed.ref),
        status=listed.status,
        public=listed.public,
        private=listed.private,
        error=listed.error,
    )


def verdict(entry: Entry) -> str:
    """The scores of a submission beside the run's CV, in one line; raises Failure if it ended in ERROR."""
    if entry.status == "ERROR":
        raise Failure(
            f"Kaggle could not score ref {entry.ref}: {entry.error or 'no reason given'}; see {PAGE}/submissions and "
            f"{hint('validate', RUN=entry.run)}; FORCE=1 submits the same file again"
        )
    cv = f"CV {entry.cv_dice}" if entry.cv_dice else "no CV"
    difference = ledger.difference(entry)
    if difference:
        cv += f", CV - score {difference}"
    return f"ref {entry.ref} {entry.status}: public {entry.public or '-'}, private {entry.private or '-'}; {cv}"


def main(argv: Sequence[str] | None = None) -> None:
    """Submit a run's submission and wait for its score."""
    arguments = parser("Validate a submission, push it to Kaggle, follow it until it is scored, record it.")
    arguments.add_argument("--run", default="default", help="name of the run, a folder in runs/, or a path")
    arguments.add_argument("--data", type=Path, help="data folder; by default that of the submission")
    arguments.add_argument("--message", default="", help="what is new in this submission; required")
    arguments.add_argument(
        "--force",
        action="store_true",
        help="submit a file that has no CV, differs from what the CV scored, changed since it was validated, or has "
        "implausible masks; resubmit one that ended in ERROR",
    )
    arguments.add_argument("--dry-run", action="store_true", help="everything except the upload; needs no network")
    arguments.add_argument("--follow", type=float, default=3600, help="seconds to wait for the score")
    arguments.add_argument("--ledger", type=Path, default=ledger.LEDGER, help="the ledger")
    add_retry_arguments(arguments)
    options = arguments.parse_args(argv)

    candidate = prepare(run_at(options.run), options.data, options.message, options.force)
    ledger.read(options.ledger)  # finds a damaged ledger before the upload
    if options.dry_run:
        print(f"dry run: {candidate.file} would be submitted as {candidate.description!r}")
        return
    kaggle = Kaggle(retry_policy(options))
    busy = "another submission is being uploaded; wait for it, then run the same command again"
    with held(options.ledger.with_name(".submit.lock"), busy):
        listed = push(candidate, kaggle, resubmit=options.force)
        known = {entry.ref: entry for entry in ledger.read(options.ledger)}
        entry = known.get(str(listed.ref)) or new_entry(candidate, listed)
        ledger.save(options.ledger, [entry.updated(listed)])
    print(f"submitted as ref {listed.ref}, recorded in {options.ledger}", flush=True)
    if listed.status not in ledger.FINAL:
        listed = follow(listed.ref, kaggle, options.follow)
    entry = entry.updated(listed)
    ledger.save(options.ledger, [entry])
    print(verdict(entry))


if __name__ == "__main__":
    run_command(main)
