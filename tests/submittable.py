"""A run with a submission that may be submitted, for the tests of submitting."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from sample_records import make_cv, make_environment, make_submission_record

from competition.files import sha256
from competition.run.folder import RunFolder
from submissions import kaggle_names, submission_file

NAMES = [f"0cdf5b5d0ce1_{view:02d}.jpg" for view in range(1, 17)]
PLAUSIBLE = "1 400000"  # a mask that covers 16 % of Carvana's picture


@pytest.fixture
def small_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``NAMES`` the whole of Carvana's test set, in this process; others need ``--force``."""
    monkeypatch.setattr(kaggle_names, "NAMES", hashlib.sha256("\n".join(NAMES).encode()).hexdigest())


class SubmittableRun:
    """The run ``unet``: predicted and scored, but not validated."""

    def __init__(self, root: Path) -> None:
        self.folder, self.data = RunFolder(root / "runs" / "unet"), root / "data"
        self.data.mkdir()
        submission_file.write(self.data / "sample_submission.csv", ((name, "1 1") for name in NAMES))
        make_environment(data=str(self.data.resolve())).write(self.folder.environment)
        make_cv().write(self.folder.cv)
        self.folder.settings.write_text("seed: 1\n")
        self.file = self.folder.submission
        self.predict()

    def predict(self, code: str = PLAUSIBLE, names: Iterable[str] = NAMES, **changes: object) -> None:
        """Write a submission and its record."""
        submission_file.write(self.file, ((name, code) for name in names))
        self.record(**changes)

    def record(self, **changes: object) -> None:
        """Write submission.json, which agrees with the CV except for the named changes."""
        fields = {"data": str(self.data), "sha256": sha256(self.file)} | changes
        make_submission_record(**fields).write(self.folder.submission_record)
