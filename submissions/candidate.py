"""May a run's submission file be submitted? The file is valid, known, and what the CV scored, or FORCE=1 is given."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import sha256
from competition.hint import hint
from competition.run.folder import RunFolder
from competition.run.open import data_of
from competition.run.predictions import is_own
from competition.run.records import CV, SubmissionRecord, Validated
from submissions import kaggle_names
from submissions.validate import stamp, validate

LEVELS = 255  # masks are thresholded on uint8 levels: thresholds between the same two levels give the same masks
LONGEST_MESSAGE = 200  # characters; Kaggle cuts long descriptions, and the mark at their end must stay


@dataclass(frozen=True)
class Candidate:
    """A submission file that may be submitted, with the records of its run.

    Attributes:
        sha256: of the file.
        message: for Kaggle's list of submissions.
        cv: None if the run has none, which only FORCE allows.
        made_by: what made the file; None if that is not known, which only FORCE allows.
    """

    run: RunFolder
    file: Path
    sha256: str
    message: str
    cv: CV | None
    made_by: SubmissionRecord | None

    @property
    def mark(self) -> str:
        """The part of the description that identifies the file in Kaggle's list."""
        return f"[sha256:{self.sha256[:16]}]"

    @property
    def description(self) -> str:
        """The description of the submission at Kaggle."""
        return f"{self.message[:LONGEST_MESSAGE]} {self.mark}"


def prepare(run: RunFolder, data: Path | None, message: str, force: bool) -> Candidate:
    """Check that a run's submission may be submitted, and validate it unless that has been done.

    Args:
        run: the run, with submission.csv.gz, submission.json and cv.json.
        data: the data folder; None for the one that the submission was predicted from.
        message: for Kaggle's list of submissions.
        force: accept a file for which ``_objections`` has one, and masks with implausible areas.
    """
    message = " ".join(message.split())
    if not message:
        raise Failure('a submission needs a message; add MESSAGE="what is new"')
    file = run.submission
    if not file.is_file():
        raise Failure(f"no submission {file}; make one first: {hint('predict', RUN=run.called)}")
    digest = sha256(file)
    record = SubmissionRecord.read_if_exists(run.submission_record)
    made_by = record if record and record.sha256 == digest else None
    candidate = Candidate(run, file, digest, message, CV.read_if_exists(run.cv), made_by)
    validated = Validated.read_if_exists(run.validated)
    folder = data_of(run, Path(record.data) if record and data is None else data)
    if data and not is_own(run, folder):
        raise Failure(
            f"{folder.root} is not the data of run {run.name}, and only masks of the run's own data are submitted; "
            "name the folder of that data with DATA=..., or omit DATA"
        )
    objection = None if force else next(_objections(candidate, folder, validated), None)
    if objection:
        raise Failure(objection)
    if validated != stamp(digest, folder):
        valid = validate(file, folder, any_area=force)
        if not force:  # implausible areas are accepted for this command only
            valid.write(run.validated)
    return candidate


def _objections(candidate: Candidate, data: DataFolder, validated: Validated | None) -> Iterator[str]:
    """Reasons not to submit a file, unless FORCE=1 is given."""
    run, file = candidate.run, candidate.file
    if difference := kaggle_names.why_not(data.submission_names):
        yield (
            f"{file} is not for Kaggle: it must have the {kaggle_names.IMAGES:,} names of Carvana's test set, and "
            f"{data.root} has {difference}; name Carvana's folder with DATA=..., or add FORCE=1"
        )
    if candidate.cv is None:
        yield f"run {run.name} has no CV to compare the score with; {hint('cv', RUN=run.called)}, or add FORCE=1"
    if validated and validated.sha256 != candidate.sha256:
        yield (
            f"{file} is not the file that was validated; check it with {hint('validate', RUN=run.called)}, or add "
            "FORCE=1 to validate and submit it"
        )
    if candidate.made_by is None:
        yield (
            f"{run.submission_record} does not describe {file}; write both again with "
            f"{hint('predict', RUN=run.called)}, or add FORCE=1"
        )
    elif candidate.cv and (differences := "; ".join(_differences(candidate.made_by, candidate.cv))):
        yield (
            f"{file} is not what {run.cv} scored: {differences}; run {hint('predict', RUN=run.called)} and "
            f"{hint('score', RUN=run.called)} with the same SET, or add FORCE=1"
        )


def _differences(made_by: SubmissionRecord, cv: CV) -> Iterator[str]:
    """How the networks and settings that made the submission differ from those that the CV scored."""
    if sorted(made_by.tta) != sorted(cv.tta):
        yield f"tta is {'+'.join(made_by.tta)}, in the CV {'+'.join(cv.tta)}"
    if math.ceil(made_by.threshold * LEVELS) != math.ceil(cv.threshold * LEVELS):
        yield f"threshold is {made_by.threshold:g}, in the CV {cv.threshold:g}"
    if made_by.engine != cv.engine:
        yield f"engine is {made_by.engine}, in the CV {cv.engine}"
    scored = {name: weight for name, weight in (cv.member_weights or {}).items() if weight}
    single = not scored and len(made_by.member_weights) == 1  # the CV of a single run has no member weights
    if made_by.member_weights != scored and not single:
        yield f"member_weights are {made_by.member_weights}, in the CV {scored or 'those of one run'}"
    scored_weights = set(cv.checkpoints.values())  # compared by content, because a run may have been moved
    for path, digest in made_by.checkpoints.items():
        if Path(path).is_file() and sha256(Path(path)) != digest:
            yield f"{path} was trained again after the prediction"
            return
    for path, digest in made_by.checkpoints.items():
        if digest not in scored_weights:
            yield f"{path} is not among the weights that the CV scored"
            return
