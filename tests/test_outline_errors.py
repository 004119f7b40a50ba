"""Where wrong pixels lie."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.outline_errors import distance_to_outline, main, wrong_pixels
from competition import rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.create import record_run
from competition.run.folder import RunFolder
from competition.settings.schema import Settings
from submissions import submission_file


def square(margin: int) -> np.ndarray:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[margin : 60 - margin, margin : 80 - margin] = 1
    return mask


def test_parts_of_a_square_that_is_two_pixels_too_large() -> None:
    truth, predicted = square(20), square(18)
    wrong = wrong_pixels(predicted, truth)
    total = truth.sum() + predicted.sum()
    first, both = square(19).sum() - truth.sum(), predicted.sum() - truth.sum()
    assert wrong.within * total == pytest.approx([first, both, both, both, both])
    assert (wrong.outside * total, wrong.inside) == (pytest.approx(both), 0)
    assert wrong_pixels(truth, predicted).inside == pytest.approx(wrong.outside), "the other way round"


def test_no_wrong_pixels() -> None:
    empty = np.zeros((8, 8), dtype=np.uint8)
    assert wrong_pixels(empty, empty).outside == 0
    assert distance_to_outline(square(20))[20, 40] == distance_to_outline(square(20))[19, 40] == 1


def test_a_run(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, run = DataFolder(tiny_data), RunFolder(tmp_path / "run")
    record_run(run, Settings(), data, "cpu")
    with pytest.raises(Failure, match="is not scored: make score RUN="):
        main(["--run", str(run.root)])
    photos = data.train[:4]
    masks = {photo.img: rle.to_mask(data.truth_spans(photo), photo.shape) for photo in photos}
    shifted = {img: np.roll(mask, 2, axis=1) for img, mask in masks.items()}
    submission_file.write(run.oof, ((img, rle.to_text(rle.from_mask(mask == 1))) for img, mask in shifted.items()))
    main(["--run", str(run.root)])
    result = json.loads(Path("benchmarks/results/outline_errors.json").read_text())
    dice = [2 * (masks[img] & shifted[img]).sum() / (masks[img].sum() + shifted[img].sum()) for img in masks]
    assert result["images"] == 4
    assert result["parts"]["all"] == pytest.approx(1 - np.mean(dice))
    assert result["parts"]["within 3 pixels of the outline"] == pytest.approx(result["parts"]["all"])
