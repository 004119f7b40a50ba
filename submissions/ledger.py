"""The ledger: every submission with its CV beside Kaggle's public and private score: ``make submissions``.

The CSV file is rewritten as a whole, under a lock and atomically: no entry is lost if two commands run at once. An
entry is identified by its ref; a submission is entered once Kaggle lists it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from competition import csv_file, files
from competition.command import parser, run_command
from competition.hint import hint
from competition.kaggle.client import Kaggle, Submission, add_retry_arguments, retry_policy

LEDGER = Path("submissions/ledger.csv")
FINAL = {"COMPLETE", "ERROR"}


@dataclass(frozen=True)
class Entry:
    """One submission; the fields are the ledger's columns, all text."""

    date: str  # from Kaggle, UTC
    run: str
    sha256: str
    settings: str  # the first 12 digits of the SHA-256 of settings.yaml
    git: str
    cv_dice: str
    cv_iou: str
    folds: str
    tta: str
    message: str
    ref: str
    status: str
    public: str
    private: str
    error: str

    def updated(self, listed: Submission) -> "Entry":
        """The entry with the current status and scores at Kaggle."""
        return replace(self, status=listed.status, public=listed.public, private=listed.private, error=listed.error)


COLUMNS = [column.name for column in fields(Entry)]


def read(ledger: Path) -> list[Entry]:
    """The entries, oldest first; empty if there is no file."""
    if not ledger.is_file():
        return []
    rows = csv_file.read(ledger, COLUMNS, "repair or move the file").rows
    return [Entry(*row.fields) for row in rows]


def save(ledger: Path, changed: Sequence[Entry]) -> None:
    """Add entries, or replace those with the same ref; safe if another command does the same at once."""
    with files.held(ledger.with_name(".ledger.lock")):
        entries = {entry.ref: entry for entry in read(ledger)}
        entries |= {entry.ref: entry for entry in changed}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries.values())
        files.write_text(ledger, text.getvalue())


def refresh(ledger: Path, kaggle: Kaggle) -> None:
    """Update the entries that are neither COMPLETE nor ERROR; makes no call if there are none."""
    pending = [entry for entry in read(ledger) if entry.status not in FINAL]
    if not pending:
        return
    listed = {str(submission.ref): submission for submission in kaggle.submissions()}
    save(ledger, [entry.updated(listed[entry.ref]) for entry in pending if entry.ref in listed])


def table(entries: Sequence[Entry]) -> list[str]:
    """The entries as lines with aligned columns."""
    if not entries:
        return []
    head = ["date (UTC)", "run", "message", "CV", "public", "private", "CV - score", "status", "ref"]
    rows = [head]
    for entry in entries:
        status = f"{entry.status}: {entry.error}" if entry.error else entry.status
        scores = [_score(entry.cv_dice), _score(entry.public), _score(entry.private), difference(entry)]
        rows.append([entry.date[:16].replace("T", " "), entry.run, entry.message, *scores, status, entry.ref])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def difference(entry: Entry) -> str:
    """CV minus the private score, or minus the public score while there is no private one; empty if unknown."""
    score = _number(entry.private) or _number(entry.public)
    cv = _number(entry.cv_dice)
    return f"{cv - score:+.5f}" if cv is not None and score is not None else ""


def _score(text: str) -> str:
    number = _number(text)
    return text if number is None else f"{number:.5f}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Update the pending entries and print the ledger."""
    arguments = parser("Print every submission with its CV beside its score.")
    arguments.add_argument("--ledger", type=Path, default=LEDGER, help="the ledger")
    add_retry_arguments(arguments)
    options = arguments.parse_args(argv)
    try:
        refresh(options.ledger, Kaggle(retry_policy(options)))
    finally:  # the ledger is printed even if Kaggle cannot be reached
        entries = read(options.ledger)
        lines = table(entries) or [f"no submissions in {options.ledger} yet; make one: {hint('submit', RUN='...')}"]
        print("\n".join(lines))


if __name__ == "__main__":
    run_command(main)
