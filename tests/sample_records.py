"""Records of a run with plausible content, for tests that only need some of their fields."""

from typing import Any

from competition.run.records import CV, Environment, FoldScore, SubmissionRecord, ThresholdCurve, ThresholdTuning


def make_cv(**changes: Any) -> CV:
    """cv.json of five folds, without test-time tuning."""
    folds = [FoldScore(fold=n, cars=2, images=32, dice=0.997, iou=0.994, threshold=0.5) for n in range(5)]
    fields: dict[str, Any] = {
        "dice": 0.99701,
        "iou": 0.99404,
        "spread": 0.0002,
        "spread_iou": 0.0004,
        "images": 160,
        "cars": 10,
        "threshold": 0.5,
        "tta": ["identity", "hflip"],
        "folds": folds,
        "tuning": ThresholdTuning(threshold=0.5, dice=0.99701, dice_at_half=0.99701, gain=0.0, used=False),
        "curve": ThresholdCurve(thresholds=[0.25, 0.5, 0.75], dice=[0.996, 0.99701, 0.996]),
        "gains": [],
        "checkpoints": {},
    }
    return CV.model_validate(fields | changes)


def make_submission_record(**changes: Any) -> SubmissionRecord:
    """submission.json of five folds of one run."""
    fields: dict[str, Any] = {
        "key": "0" * 16,
        "images": 32,
        "folds": 5,
        "networks": 5,
        "tta": ["identity", "hflip"],
        "precision": "fp32",
        "compile": False,
        "device": "cpu",
        "threads": 1,
        "batch_size": 8,
        "shard": 256,
        "data": "data/carvana",
        "photos": "0" * 16,
        "member_weights": {"runs/x": 1.0},
        "threshold": 0.5,
        "checkpoints": {},
        "sha256": "0" * 64,
    }
    return SubmissionRecord.model_validate(fields | changes)


def make_environment(**changes: Any) -> Environment:
    """environment.json of a run on a CPU."""
    fields: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "data": "data/carvana",
        "fingerprint": "0" * 16,
        "device": "CPU, 1 thread",
        "python": "3.11.7",
        "platform": "Linux",
        "packages": {"torch": "2.15.0"},
    }
    return Environment.model_validate(fields | changes)
