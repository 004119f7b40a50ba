"""Which masks of a run a data folder belongs to: its submission, or masks of their own in predictions/.

The submission is of the run's own data: the folder that the run was trained or its submission was predicted from, or
a copy of it. The masks of all other data are in predictions/<name of the folder>/. A second folder of the same name
gets ``<name>-2`` there.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from competition.command import Failure
from competition.data_folder import DataFolder, fingerprint_of
from competition.files import held
from competition.hint import hint
from competition.run.folder import OtherData, Predicted, RunFolder
from competition.run.records import Environment, PredictedData, SubmissionRecord


def is_own(run: RunFolder, data: DataFolder) -> bool:
    """Whether a data folder is the run's own, or a copy of it.

    A copy has the same test photos as the run's submission, or, if there is none yet, the same training photos as the
    run. A folder may lack its training photos. A run whose records are lost accepts every folder.
    """
    root = _absolute(data)
    environment = Environment.read_if_exists(run.environment)
    if environment and root == environment.data:
        return True
    submission = SubmissionRecord.read_if_exists(run.submission_record)
    with suppress(Failure):  # of a folder without such photos
        if submission:
            return root == submission.data or fingerprint_of(data.submission_photos) == submission.photos
        return environment is None or data.fingerprint == environment.fingerprint
    return False


def predicted(run: RunFolder, data: DataFolder) -> Predicted:
    """The masks of a data folder; a Failure if it is not the run's own and was never predicted."""
    place = run if is_own(run, data) else _existing(run, data)
    if place is None:
        variables = OtherData(run.predictions, run, data.root).variables
        raise Failure(
            f"run {run.name} has not predicted {data.root}; predict it first: {hint('predict', **variables)}"
        )
    return place


def place_for(run: RunFolder, data: DataFolder) -> Predicted:
    """Where to write the masks of a data folder; reserves a folder for data that is not the run's own."""
    if is_own(run, data):
        return run
    with held(run.predictions / ".lock"):
        place = _existing(run, data)
        if place is None:
            place = next(place for place in _places(run, data) if _is_free(place))
            PredictedData(data=_absolute(data)).write(place.source)
    return place


def _existing(run: RunFolder, data: DataFolder) -> OtherData | None:
    """The folder that is reserved for the masks of other data, if there is one."""
    for folder in sorted(run.predictions.glob("*/")):
        place = OtherData(folder, run, data.root)
        source = PredictedData.read_if_exists(place.source)
        if source and source.data == _absolute(data):
            return place
    return None


def _places(run: RunFolder, data: DataFolder) -> Iterator[OtherData]:
    """Folders for the masks of other data: ``<name>``, ``<name>-2``, ``<name>-3`` and so on."""
    name = Path(_absolute(data)).name or "data"
    for number in count(1):
        yield OtherData(run.predictions / (name if number == 1 else f"{name}-{number}"), run, data.root)


def _is_free(place: OtherData) -> bool:
    return not place.source.exists() and not place.submission.exists()


def _absolute(data: DataFolder) -> str:
    return str(data.root.resolve())
