"""Validate a run's submission, push it to Kaggle, follow it until it is scored, note it: ``make submit``.

A submission is precious (five a day) and its upload long, so that nothing is taken on trust. The file's hash goes
into the description and is looked for in Kaggle's list before every attempt: a lost reply never spends two
submissions, and the same command, typed again after anything whatever, goes on where it stopped.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from competition.command import Failure, parser, run_command
from competition.files import held, sha256
from competition.kaggle.client import PAGE, Kaggle, KaggleError, Submission, add_patience_arguments, patience
from competition.run.environment import git_revision
from competition.run.folder import RunFolder, run_at
from competition.run.records import CV, Pushing, SubmissionRecord, Validated
from submissions import ledger
from submissions.ledger import Entry
from submissions.validate import predicted_data, stamp, validate

POLL_FIRST, POLL_LAST = 2.0, 30.0  # seconds between two looks at the list: at first, and in the long run
LEVELS = 255  # of a probability in a byte: thresholds between two of them make the same masks
LONGEST_MESSAGE = 200  # characters; the mark comes after them and must not be cut off


@dataclass(frozen=True)
class Candidate:
    """What is to be submitted, and what the ledger will say of it."""

    run: RunFolder
    file: Path
    sha256: str
    message: str
    cv: CV | None
    folds: str
    tta: str

    @property
    def mark(self) -> str:
        """What the file is known by in Kaggle's list."""
        return f"[sha256:{self.sha256[:16]}]"

    @property
    def description(self) -> str:
        """What Kaggle is told."""
        return f"{self.message[:LONGEST_MESSAGE]} {self.mark}"

    def entry(self, listed: Submission) -> Entry:
        """The line of the ledger."""
        settings = self.run.settings.read_bytes() if self.run.settings.is_file() else b""
        return Entry(
            when=listed.date,
            run=self.run.name,
            sha256=self.sha256,
            settings=hashlib.sha256(settings).hexdigest()[:12] if settings else "",
            git=git_revision() or "",
            cv_dice=str(self.cv.dice) if self.cv else "",
            cv_iou=str(self.cv.iou) if self.cv else "",
            folds=self.folds,
            tta=self.tta,
            message=self.message,
            ref=str(listed.ref),
            status=listed.status,
            public=listed.public,
            private=listed.private,
            error=listed.error,
        )


def prepare(run: RunFolder, data: Path | None, message: str, force: bool) -> Candidate:
    """Make sure that a run's submission may be submitted.

    Args:
        run: the run, with submission.csv.gz, submission.json and cv.json.
        data: the data folder, by default the one that the submission was predicted from.
        message: for the list of submissions.
        force: take a run without a CV, a file that is not what the CV scored, one that is not the one that was
            validated (it is validated now), and one whose masks have implausible areas.

    Raises:
        Failure: there is no submission, it is not valid, or one of the above and not ``force``.
    """
    message = " ".join(message.split())
    if not message:
        raise Failure('a submission needs words to know it by; add MESSAGE="what is new"')
    file = run.submission
    if not file.is_file():
        raise Failure(f"no submission {file}; make one first: make predict RUN={run.called}")
    cv = CV.read_if_exists(run.cv)
    if cv is None and not force:
        raise Failure(f"run {run.name} has no CV to compare the score with; make cv RUN={run.called}, or add FORCE=1")
    folder = predicted_data(run, data)
    digest = sha256(file)
    found = Validated.read_if_exists(run.validated)
    if found and found.sha256 != digest and not force:
        raise Failure(
            f"{file} is not the file that was validated; make validate RUN={run.called} looks at this one, FORCE=1 "
            "does so and submits it"
        )
    folds, tta = _made_by(run, digest, cv, force)
    if found != stamp(digest, folder):
        valid = validate(file, folder, any_area=force)
        if not force:  # which would stand for the next call too
            valid.write(run.validated)
    return Candidate(run, file, digest, message, cv, folds, tta)


def push(candidate: Candidate, kaggle: Kaggle, after_error: bool = False) -> Submission:
    """Submit a file unless Kaggle lists it already; return what Kaggle then lists.

    Args:
        candidate: what to submit.
        kaggle: where.
        after_error: submit a file once more that ended in ERROR. One that was scored is never submitted again.

    Raises:
        Failure: Kaggle refuses, cannot be reached, has no submission left for today, or does not list the new one.
    """
    failed: set[int] = set()
    pushing = candidate.run.pushing
    begun = Pushing.read_if_exists(pushing)
    # Whether a push has failed, or was killed, that may have submitted all the same.
    uncertain = begun is not None and begun.sha256 == candidate.sha256
    if after_error:
        failed = {listed.ref for listed in _marked(candidate, kaggle) if listed.status == "ERROR"}

    def find() -> Submission | None:
        return next((listed for listed in _marked(candidate, kaggle) if listed.ref not in failed), None)

    def find_patiently() -> Submission | None:
        """Kaggle's list may lag behind what it has taken."""
        listed = find()
        for look in range(1, kaggle.patience.attempts):
            if listed is None:
                time.sleep(kaggle.patience.pause * 2 ** (look - 1))
                listed = find()
        return listed

    def look_then_push() -> Submission | None:
        nonlocal uncertain
        listed = find_patiently() if uncertain else find()
        if listed is not None:
            print(f"Kaggle lists this very file as ref {listed.ref}: it is not uploaded again")
            return listed
        _require_allowance(kaggle)
        _require_same(candidate)
        print(f"uploading {candidate.file} ({candidate.file.stat().st_size / 1e6:,.1f} MB)", flush=True)
        Pushing(sha256=candidate.sha256).write(pushing)
        try:
            kaggle.push(candidate.file, candidate.description)
        except KaggleError as error:
            uncertain = uncertain or not error.unsubmitted
            if not uncertain:
                pushing.unlink()
            raise
        return find_patiently()

    listed = kaggle.retried(look_then_push)
    if listed is None:
        raise KaggleError(
            f"the upload went well, but Kaggle does not list {candidate.mark}; look at {PAGE}/submissions, and if it "
            "is not there in some minutes, type the same command again"
        )
    pushing.unlink(missing_ok=True)
    return listed


def follow(ref: int, kaggle: Kaggle, seconds: float) -> Submission:
    """Look at a submission until it is COMPLETE or ERROR.

    Raises:
        Failure: it is neither after that many seconds, or Kaggle refuses to tell; the submission exists all the same.
    """
    start, said, pause = time.monotonic(), "", min(POLL_FIRST, kaggle.patience.pause)
    while True:
        try:
            listed = next((listed for listed in kaggle.submissions() if listed.ref == ref), None)
            state = listed.status if listed else "not listed"
            if listed and state in ledger.FINAL:
                return listed
        except KaggleError as error:
            if not error.passing:
                raise
            state = f"unknown ({error})"
        waited = time.monotonic() - start
        if state != said:
            print(f"ref {ref}: {state} ({waited:.0f} s)", flush=True)
            said = state
        if waited + pause > seconds:
            raise KaggleError(
                f"ref {ref} is submitted, and after {waited:.0f} s its state is {state}; make submissions asks again"
            )
        time.sleep(pause)
        pause = min(pause * 1.3, POLL_LAST)


def verdict(entry: Entry) -> str:
    """The scores of a submission beside the run's CV, in one line.

    Raises:
        Failure: it ended in ERROR.
    """
    if entry.status == "ERROR":
        raise Failure(
            f"Kaggle could not score ref {entry.ref}: {entry.error or 'it says no reason'}; see {PAGE}/submissions "
            f"and make validate RUN={entry.run}; FORCE=1 submits the same file once more"
        )
    cv = f"CV {entry.cv_dice}" if entry.cv_dice else "no CV"
    difference = f", CV - score {ledger.difference(entry)}" if ledger.difference(entry) else ""
    scores = f"public {entry.public or 'none yet'}, private {entry.private or 'none yet'}"
    return f"ref {entry.ref} {entry.status}: {scores}; {cv}{difference}"


def _made_by(run: RunFolder, digest: str, cv: CV | None, force: bool) -> tuple[str, str]:
    """The folds and views of a submission, for the ledger: those of submission.json, which the CV must share."""
    record = run.submission_record
    made = SubmissionRecord.read_if_exists(record)  # a file that ``make predict`` did not write has none
    again = f"make predict RUN={run.called}"
    if made is None or made.sha256 != digest:
        if force:
            return "", ""  # whatever made it
        raise Failure(
            f"{record} does not tell what made {run.submission}; {again} writes both, FORCE=1 "
            "submits the file as it is"
        )
    differing = "" if force or cv is None else "; ".join(_differences(made, cv))
    if differing:
        raise Failure(
            f"{run.submission} is not what {run.cv} scored: {differing}; {again} or make score RUN={run.called} "
            "again, the two with the same SET, or add FORCE=1"
        )
    return str(made.folds), "+".join(made.tta)


def _differences(made: SubmissionRecord, cv: CV) -> Iterator[str]:
    """Where what made a submission (submission.json) is not what the CV (cv.json) scored."""
    if sorted(made.tta) != sorted(cv.tta):
        yield f"tta {'+'.join(made.tta)}, there {'+'.join(cv.tta)}"
    if math.ceil(made.threshold * LEVELS) != math.ceil(cv.threshold * LEVELS):
        yield f"threshold {made.threshold:.3f}, there {cv.threshold:.3f}"
    heard = {name: weight for name, weight in (cv.member_weights or {}).items() if weight}  # a CV of one run has none
    if made.member_weights != heard and (heard or len(made.member_weights) > 1):
        yield f"member_weights {made.member_weights}, there {heard or 'one run'}"
    for path, digest in made.checkpoints.items():
        if Path(path).is_file() and sha256(Path(path)) != digest:
            yield f"{path} has been trained since"
            return
    scored = set(cv.checkpoints.values())  # by content: a run may have been moved
    if other := [path for path, digest in made.checkpoints.items() if digest not in scored]:
        yield f"{other[0]} is of another training than the one that was scored"


def _marked(candidate: Candidate, kaggle: Kaggle) -> list[Submission]:
    """What Kaggle lists of this very file, the latest first."""
    return [listed for listed in kaggle.submissions() if candidate.mark in listed.description]


def _require_allowance(kaggle: Kaggle) -> None:
    """Raise a Failure if Kaggle takes nothing more today; not knowing does not stop anybody."""
    try:
        allowance = kaggle.allowance()
    except KaggleError as error:
        if error.passing:
            raise
        print(f"how many submissions are left today is unknown: {error}")
        return
    if allowance.left <= 0 and allowance.total > 0:  # all are 0 before a team's first submission
        raise Failure(
            f"no submission is left today ({allowance.today} made); type the same command again after midnight UTC"
        )
    if allowance.left > 0:
        print(f"{allowance.left} submissions left today, with this one")


def _require_same(candidate: Candidate) -> None:
    if sha256(candidate.file) != candidate.sha256:
        raise Failure(f"{candidate.file} has changed since it was validated; type the same command again")


def main(argv: Sequence[str] | None = None) -> None:
    """Submit a run's submission and wait for its score."""
    arguments = parser(
        "Validate a submission, push it to Kaggle, follow it until it is scored, note it in the ledger."
    )
    arguments.add_argument("--run", default="default", help="name of the run, a folder below runs/, or a path")
    arguments.add_argument("--data", type=Path, help="data folder; by default that of the submission")
    arguments.add_argument("--message", default="", help="words to know the submission by; needed")
    arguments.add_argument(
        "--force",
        action="store_true",
        help="without a CV, other than it, changed since validated, or implausible",
    )
    arguments.add_argument("--dry-run", action="store_true", help="all but the upload, without a network")
    arguments.add_argument("--follow", type=float, default=3600, help="seconds to wait for the score")
    arguments.add_argument("--ledger", type=Path, default=ledger.LEDGER, help="the ledger")
    add_patience_arguments(arguments)
    options = arguments.parse_args(argv)

    candidate = prepare(run_at(options.run), options.data, options.message, options.force)
    ledger.read(options.ledger)  # a damaged ledger is better found before the upload than after it
    if options.dry_run:
        print(f"dry run: {candidate.file} would be submitted as {candidate.description!r}")
        return
    kaggle = Kaggle(patience(options))
    busy = "another submission is under way; wait until it has been uploaded"
    with held(options.ledger.with_name(".submit.lock"), busy):
        listed = push(candidate, kaggle, after_error=options.force)
        known = {entry.ref: entry for entry in ledger.read(options.ledger)}
        entry = known.get(str(listed.ref)) or candidate.entry(listed)
        ledger.note(options.ledger, [entry.updated(listed)])
    print(f"submitted as ref {listed.ref}, noted in {options.ledger}", flush=True)
    if listed.status not in ledger.FINAL:
        listed = follow(listed.ref, kaggle, options.follow)
    entry = entry.updated(listed)
    ledger.note(options.ledger, [entry])
    print(verdict(entry))


if __name__ == "__main__":
    run_command(main)
