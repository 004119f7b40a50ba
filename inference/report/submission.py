"""The submission file of a run."""

from collections.abc import Collection
from dataclasses import dataclass

from tqdm import tqdm

from competition.mask_table import MaskRow, read_rows
from competition.run.folder import RunFolder
from submissions import kaggle_names


@dataclass(frozen=True)
class Submission:
    """Facts about a submission file, and some of its rows by image name; whether Kaggle takes its names."""

    rows: int
    empty: int
    megabytes: float
    chosen: dict[str, MaskRow]
    for_kaggle: bool


def read_submission(run: RunFolder, chosen: Collection[str]) -> Submission | None:
    """Read the submission of a run once, keeping the rows of the chosen images; None if there is no submission."""
    if not run.submission.is_file():
        return None
    names, empty, kept = [], 0, {}
    for row in tqdm(read_rows(run.submission), desc="submission", unit="image", disable=None, leave=False):
        names.append(row.img)
        empty += not row.rle
        if row.img in chosen:
            kept[row.img] = row
    size = run.submission.stat().st_size / 1e6
    return Submission(len(names), empty, size, kept, kaggle_names.why_not(names) is None)
