"""The report of a run: the files of a tiny run are written here, and the page is parsed."""

import base64
import csv
import gzip
import hashlib
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sample_records import make_cv, make_submission_record

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import DataFolder, fingerprint_of
from competition.files import sha256
from competition.photo import Photo
from competition.run.create import record_run
from competition.run.folder import RunFolder
from competition.run.records import (
    CV,
    Environment,
    Epoch,
    FoldScore,
    Gain,
    ThresholdTuning,
    read_history,
    write_history,
)
from competition.settings.resolve import load_settings, resolve, to_yaml
from inference.predict import write_certainty
from inference.report import contact_sheet, gallery, pictures, scales, svg, tables
from inference.report.__main__ import main
from inference.report.facts import facts
from inference.report.mistakes import EXTRA, MISSED, RIGHT, Window, count, mistakes, worst_windows
from inference.report.page import SECTIONS
from inference.report.results import read_results
from submissions import kaggle_names

HEIGHT, WIDTH = 64, 96
CARS = ["00000000000a", "000000000012", "1234567890e1"]  # two of them look like numbers
NOTE = "chosen on the other folds, not used"
SCRIPT = "<script>alert('1')</script>&\"x"


class Page:
    """The parts of a page that the tests check. It is parsed as XML: an element that is left open is an error."""

    def __init__(self, html: str) -> None:
        html = html.replace(" checked>", ' checked="">').replace("xlink:", "")
        root = ElementTree.fromstring(re.sub(r"<((?:meta|link|img|input|br)\b[^>]*)>", r"<\1/>", html))
        elements = list(root.iter())
        self.tags = {element.tag for element in elements}
        self.attributes = [(each.tag, name, value) for each in elements for name, value in each.items()]
        self.by_id = {element.get("id"): "".join(element.itertext()) for element in elements}
        self.rows = [[stripped(cell) for cell in row] for row in root.iter("tr")]
        self.headings = [stripped(cell) for cell in root.iter("th")]
        self.articles = ["".join(article.itertext()) for article in root.iter("article")]
        self.texts = list(root.itertext())
        self.links = [element.get("href", "") for element in elements if element.tag == "a"]
        self.sections = [element.get("id") for element in root.iter("section")]
        self.charts = [
            ElementTree.tostring(svg, "unicode") for svg in root.iterfind(".//div[@class='two']/figure/svg")
        ]
        self.tiles = [
            "".join(caption.itertext()) for caption in root.iterfind(".//div[@class='sheet']/figure/figcaption")
        ]
        self.tables = sum(1 for _ in root.iter("table"))
        self.scrolled = len(root.findall(".//div[@class='scroll']/table"))
        overlays = [image.get("src", "") for image in root.iter("img") if image.get("class") == "over"]
        self.overlays = [read_image(source) for source in overlays]

    def fold_rows(self) -> list[list[str]]:
        """The rows of the table of folds."""
        return [row for row in self.rows if row[0] in ("0", "1", "all") and len(row) >= 9]


def stripped(cell: ElementTree.Element) -> str:
    return "".join(text.strip() for text in cell.itertext())


def read_image(source: str) -> NDArray[np.uint8]:
    """An image in the page itself, with its opacity."""
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def write_data(root: Path, cars: list[str], views: int = 2) -> DataFolder:
    """Grey photos of ellipses, with masks and metadata."""
    for folder in ("train", "train_masks"):
        (root / folder).mkdir(parents=True)
    for at, car in enumerate(cars):
        for view in range(1, views + 1):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            cv2.ellipse(mask, (40 + 5 * view, 32), (22 + 2 * at, 14 + at), 0, 0, 360, 1, -1)
            name = f"{car}_{view:02d}"
            Image.fromarray(np.dstack([200 - 120 * mask] * 3)).save(root / "train" / f"{name}.jpg")
            Image.fromarray(mask * 255).save(root / "train_masks" / f"{name}_mask.png")
    rows = [f'"{car}","201{at}","Make{at}","Model{at}","",""' for at, car in enumerate(cars)]
    (root / "metadata.csv").write_text("\n".join(['"id","year","make","model","trim1","trim2"', *rows]) + "\n")
    return DataFolder(root)


def predict(truth: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """A truth with a part erased and a part added, different for each image."""
    predicted = truth.copy()
    predicted[30 : 33 + at, 40:50] = 0
    predicted[2:5, 3 : 6 + 2 * at] = 1
    return predicted


def write_run(
    root: Path,
    data: DataFolder,
    /,
    *,
    predict=predict,
    seconds: float = 3,
    **more,
) -> RunFolder:
    """A run of two folds with all files that a report needs; ``more`` changes its settings."""
    run = RunFolder(root)
    record_run(run, resolve({"split": {"folds": 2}, "train": {"epochs": 3}, **more}), data, "a slow processor")
    fold = {car: at % 2 for at, car in enumerate(sorted({photo.car for photo in data.train}))}
    rows, codes = [], []
    for at, photo in enumerate(data.train):
        truth = data.truth(photo)
        predicted = predict(truth, at)
        counted = metrics.counts(truth, predicted)
        scores = round(counted.dice, 7), round(counted.iou, 7)
        rows.append((photo.img, photo.car, photo.view, fold[photo.car], *scores))
        codes.append((photo.img, rle.encode(predicted)))
    table = pd.DataFrame(rows, columns=["img", "car", "view", "fold", "dice", "iou"])
    table[["img", "car", "fold"]].to_csv(run.folds, index=False)
    table.to_csv(run.oof_scores, index=False)
    write_rows(run.oof, codes)
    cv_of(table).write(run.cv)
    for number in (0, 1):
        run.fold(number).mkdir()
        common = {"lr": 0.1, "seconds": seconds, "images_per_second": 9}
        epochs = [
            Epoch(epoch=1, loss=0.5, **common),
            Epoch(epoch=2, loss=0.2, dice=0.91, iou=0.8, best=True, **common),
            Epoch(epoch=3, loss=0.1, dice=0.9, iou=0.8, **common),
        ]
        write_history(run.history(number), epochs)
    return run


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([("img", "rle_mask"), *rows])


def cv_of(table: pd.DataFrame) -> CV:
    folds = [
        FoldScore(fold=fold, cars=1, images=len(part), dice=part.dice.mean(), iou=part.iou.mean(), threshold=0.5)
        for fold, part in table.groupby("fold")
    ]
    gain = {"over": "0.5", "gain": -0.00012, "spread": 0.00003, "folds": 1, "note": NOTE}
    return make_cv(
        dice=table.dice.mean(),
        iou=table.iou.mean(),
        spread=float(np.std([fold.dice for fold in folds])),
        images=len(table),
        cars=table.car.nunique(),
        folds=folds,
        gains=[Gain(what="identity", dice=0.9), Gain(what="best threshold 0.438", dice=0.9, **gain)],
        tuning=ThresholdTuning(threshold=0.4375, dice=0.9, dice_at_half=0.89988, gain=0.00012, used=False),
    )


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", CARS)


@pytest.fixture
def run(tmp_path, data):
    return write_run(tmp_path / "runs" / "tiny", data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its report, for tests that change nothing: the run, its data, the page's text."""
    root = tmp_path_factory.mktemp("finished")
    data = write_data(root / "data", CARS)
    run = write_run(root / "tiny", data)
    return run, data, made(run)


def made(run: RunFolder) -> str:
    main(["--run", str(run.root)])
    return run.report.read_text(encoding="utf-8")


def test_the_page_has_the_numbers(finished):
    run, _, html = finished
    page = Page(html)
    scores = pd.read_csv(run.oof_scores, dtype={"car": str})
    assert page.by_id["dice"] == f"{scores.dice.mean():.5f}"
    assert page.by_id["iou"] == f"{scores.iou.mean():.5f}"
    assert page.by_id["images"] == "6"
    assert page.by_id["cars"] == "3"
    folds = {row[0]: row for row in page.fold_rows()}
    for number, part in scores.groupby("fold"):
        worst = part.sort_values("dice").iloc[0]
        row = folds[str(number)]
        assert row[1:] == [
            f"{part.dice.mean():.5f}", f"{part.iou.mean():.5f}",
            str(part.car.nunique()), str(len(part)), "3", "0.5",
            worst.img, f"{worst.dice:.5f}",
        ]  # fmt: skip
    assert folds["all"][3:5] == ["3", "6"]
    assert "+0.00012" in page.by_id["tuning"]
    assert ["identity", "0.90000", ""] in page.rows
    row = ["best threshold 0.438", "0.90000", "−0.00012", "0.00003", "1 of 2", "0.5"]
    assert [*row, NOTE] in page.rows
    views = next(row for row in page.rows if row[0] == "all folds")
    assert views[1:] == [f"{scores[scores['view'] == view].dice.mean():.4f}"[1:] for view in (1, 2)]
    makes = [row for row in page.rows if row[0].startswith("Make")]
    assert sorted(row[2] for row in makes) == sorted(f"{part.dice.mean():.5f}" for _, part in scores.groupby("car"))
    assert any("a slow processor" in text for text in page.texts)


def test_every_photo_has_its_numbers_and_its_wrong_pixels_in_colour(finished):
    run, data, html = finished
    page = Page(html)
    assert len(page.articles) == len(page.overlays) == 6  # each image once; a crop as large as the image holds it all
    scores = pd.read_csv(run.oof_scores).sort_values(["dice", "img"])
    photos = {photo.img: photo for photo in data.train}
    for article, overlay in zip(page.articles, page.overlays, strict=True):
        img = next(img for img in photos if img in article)
        truth = data.truth(photos[img]) != 0
        predicted = predict(data.truth(photos[img]), sorted(photos).index(img)) != 0
        missed = (overlay == (*pictures.MISSED_COLOUR, pictures.OPACITY)).all(axis=2)
        extra = (overlay == (*pictures.EXTRA_COLOUR, pictures.OPACITY)).all(axis=2)
        np.testing.assert_array_equal(missed, truth & ~predicted)
        np.testing.assert_array_equal(extra, ~truth & predicted)
        assert missed.any() and extra.any()
        np.testing.assert_array_equal(overlay[..., 3] != 0, missed | extra)
        text = " ".join(article.split())
        score = scores[scores.img == img].iloc[0]
        assert f"missed {missed.sum()} px extra {extra.sum()} px" in text
        assert f"Dice {score.dice:.5f} IoU {score.iou:.5f}" in text
        assert f"fold {score.fold} view {score['view']:02d} car {photos[img].car}" in text
    assert "2011 Make1 Model1" in " ".join(page.articles)


def test_the_worst_come_first_and_each_car_has_at_most_three():
    cars = [(car, view, 0.5 + 0.1 * at + 0.001 * view) for at, car in enumerate("abcdef") for view in range(1, 17)]
    table = pd.DataFrame(
        [(f"{car}_{view:02d}.jpg", car, dice) for car, view, dice in cars], columns=["img", "car", "dice"]
    )
    worst, usual, best = gallery.choose(table.sample(frac=1, random_state=1))
    assert worst[2][:4] == ["a_01.jpg", "a_02.jpg", "a_03.jpg", "b_01.jpg"]
    assert len(worst[2]) == gallery.WORST
    assert usual[2] == ["c_16.jpg", "d_04.jpg"]  # d's first three are among the worst
    assert best[2] == ["f_16.jpg", "e_16.jpg"]


def test_the_page_loads_nothing_and_no_heading_is_empty(finished):
    html = finished[2]
    page = Page(html)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "poster", "data"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
    assert not {"script", "link", "iframe", "object", "base"} & page.tags
    assert not re.search(r"url\((?!#)|@import|https?:", html)
    assert ("span", "class", "") not in page.attributes
    assert "" not in page.headings


def test_the_contents_name_all_sections_in_order_and_all_links_lead_somewhere(finished):
    page = Page(finished[2])
    assert page.links[: len(SECTIONS)] == [f"#{name}" for name in page.sections]
    assert all(link[1:] in page.by_id for link in page.links)


def test_a_phone_shows_readable_labels_and_tables_that_scroll(finished):
    """Chart labels are scaled with the chart, which is as wide as a page of 390 pixels without its padding."""
    page, css = Page(finished[2]), (Path(svg.__file__).parent / "page.css").read_text()
    padding = int(re.findall(r"max-width: 760px\) \{\s+body \{ padding: \d+px (\d+)px", css)[0])
    assert len(page.charts) == 4
    for chart in page.charts:
        width = float(re.findall(r'viewBox="0 0 ([\d.]+)', chart)[0])
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", chart)]
        assert len(sizes) > 5
        assert min(sizes) * (390 - 2 * padding) / width >= 11
    assert min(float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", css)) * 0.92 >= 11, "0.92 em is code"
    assert page.tables == page.scrolled > 5
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.04, 0.9, [0.05, 0.1, 0.2, 0.5]),
        (0.011, 0.019, [0.012, 0.014, 0.016, 0.018]),
        (0.5, 0.52, [0.5, 0.505, 0.51, 0.515, 0.52]),
        (2e-4, 3, [0.0002, 0.001, 0.01, 0.1, 1]),
        (0.0009, 0.11, [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]),
    ],
)
def test_a_logarithmic_axis_has_round_ticks(low, high, expected):
    found = scales.ticks(scales.LOG_TICKS, low, high, 1 / 9, np.log10)
    assert found == pytest.approx(expected)


@given(low=st.floats(1e-6, 100), factor=st.floats(1.001, 1e5))
def test_every_logarithmic_axis_has_ticks_that_do_not_touch(low, factor):
    found = np.array(scales.ticks(scales.LOG_TICKS, low, low * factor, 1 / 9, np.log10))
    assert len(found) >= 2
    assert found[0] >= low and found[-1] <= low * factor
    assert (np.diff(np.log10(found)) >= np.log10(factor) / 9 - 1e-12).all()
    assert all("e" not in scales.plain(tick) for tick in found)


def test_dice_has_the_roundest_ticks_and_numbers_are_plain():
    ticks = scales.ticks(scales.DICE_TICKS, 0.85, 0.9995, 1 / 6, scales.to_scale)
    assert ticks == [0.9, 0.97, 0.99, 0.997, 0.999]
    assert [scales.plain(value) for value in (0.00001, 0.30000000000000004, 20.0)] == ["0.00001", "0.3", "20"]


def test_a_single_validated_epoch_is_a_row_of_a_table_and_no_chart(tmp_path, data):
    run = write_run(tmp_path / "runs" / "short", data)
    epochs = [epoch.model_copy(update={"dice": None, "best": False}) for epoch in read_history(run.history(0))[:2]]
    for fold, dice in ((0, 0.91), (1, 0.92)):
        last = epochs[1].model_copy(update={"epoch": 3, "loss": 0.0123456, "dice": dice, "best": True})
        write_history(run.history(fold), [*epochs, last])
    page = Page(made(run))
    assert len(page.charts) == 3
    assert "no curve of the validation Dice" in page.by_id["training"]
    assert ["1", "3", "0.01235", "3", "0.92000"] in page.rows
    write_history(run.history(0), [last])
    write_history(run.history(1), [last])
    histories = read_results(run, data).members[0].histories
    assert not tables.several_epochs(histories, "loss"), "one epoch has no curve of the loss"
    for fold in (0, 1):
        write_history(run.first_stage.history(fold), epochs)
    settings = load_settings(run.settings).model_dump() | {"first_stage": {"epochs": 2, "crop": [32, 64]}}
    run.settings.write_text(to_yaml(resolve(settings)))
    page = Page(made(run))
    assert ["1", "5", "0.01235", "5", "0.92000"] in page.rows, "the first stage comes first"
    assert "The first 2 epochs are the first stage" in page.by_id["training"]
    assert any(text.startswith("2 epochs, batches of 8 crops of 64 × 32, then 3 ep") for text in page.texts)


def test_names_are_escaped_and_a_long_list_of_cars_is_collapsed(tmp_path):
    data = write_data(
        tmp_path / "data", ["<b>bold<|b>", "b&amp;'", *(f"car{number}" for number in range(8))], views=1
    )
    text = (data.root / "metadata.csv").read_text().replace("Make0", SCRIPT.replace('"', '""'))
    (data.root / "metadata.csv").write_text(text)
    html = made(write_run(tmp_path / "runs" / "<i>run<i>", data))
    page = Page(html)
    assert "script" not in page.tags
    assert not re.search("<i>run|<b>bold<", html)
    assert any(SCRIPT in row[0] for row in page.rows)
    assert any("<b>bold<|b>" in article for article in page.articles)
    assert [row for row in page.rows if row[0] == "car"] == [["car", "images", "Dice", "IoU", "1 − Dice"]] * 2
    assert any("2 more cars with a higher Dice" in text for text in page.texts)


def write_together(root: Path, data: DataFolder) -> RunFolder:
    """A combined run of two runs, z and a, with different inputs and weights."""
    names = [
        str(write_run(root / "z", data).root),
        str(write_run(root / "a", data, input={"width": 512}, augment={"flip": 0.25}, train={"epochs": 2}).root),
    ]
    together = write_run(root / "z+a", data)
    change_record(Environment, "environment", runs=names)(together)
    weights = [dict(zip(names, each, strict=True)) for each in ((0.25, 0.75), (0.0, 1.0), (0.5, 0.5))]
    folds = CV.read(together.cv).folds
    folds = [fold.model_copy(update={"member_weights": each}) for fold, each in zip(folds, weights[1:], strict=True)]
    change_record(CV, "cv", member_weights=weights[0], folds=folds)(together)
    for number in (0, 1):
        together.history(number).unlink()
    return together


def test_members_are_compared(tmp_path, data):
    together = write_together(tmp_path / "runs", data)
    page = Page(made(together))
    start = page.rows.index(["run", "z", "a"])
    assert page.rows[start : start + 4] == [
        ["run", "z", "a"],
        ["Member weight", "0.25", "0.75"],
        ["Input", "384 × 256 pixels, resized", "512 × 256 pixels, resized"],
        ["Training", "3 epochs, batches of 8, adamw", "2 epochs, batches of 8, adamw"],
    ]
    assert "Network" not in [row[0] for row in page.rows], "common facts are above the table"
    assert page.texts.count("U-Net, width 32, depth 4, stem 1") == 1
    assert ["augment.flip", "0.5", "0.25"] in page.rows
    assert [row[3:8] for row in page.fold_rows()] == [
        ["2", "4", "3, 3", "0, 1", "0.5"],
        ["1", "2", "3, 3", "0.5, 0.5", "0.5"],
        ["3", "6", "", "0.25, 0.75", "0.5"],
    ]
    training = " ".join(page.by_id["training"].split())
    commands = [f"make report RUN={tmp_path / 'runs' / name}" for name in "za"]
    assert training.endswith(f"reports of the runs that predict together: {', '.join(commands)}.")
    change_record(CV, "cv", member_weights={"z": 1})(together)
    with pytest.raises(Failure, match=r"cv.json has no member weights of .*/z and .*/a; make score RUN=.*/z\+a"):
        made(together)


def test_a_single_run_is_not_compared(finished):
    run, _, html = finished
    page = Page(html)
    assert not {"run", "Member weight", "augment.flip", "python"} & {row[0] for row in page.rows}
    assert page.texts.count("augment.flip") == page.texts.count("python") == 1
    assert made(run) == html, "the same files give the same page"


def test_facts_name_the_runs_that_a_training_started_from(tmp_path, data):
    learned = write_run(
        tmp_path / "runs" / "next",
        data,
        seconds=1199.9,
        network={"init_from": "first"},
        data={"pseudo": "first"},
        loss={"boundary": 3, "dice": 0.5, "targets": "hard"},
    )
    found = facts(read_results(learned, data)).shared
    assert found["Network"] == "U-Net, width 32, depth 4, stem 1, from run first"
    assert found["Split"] == "2 folds of cars, split of run first"
    assert found["Data"].endswith("), and pseudo-labels of run first")
    assert found["Loss"] == "binary cross-entropy + 0.5 × (1 − Dice), weight 3 near the outline, hard targets"
    assert found["Training time"] == "2 h 0 min for 6 epochs", "rounded to minutes before hours are split off"


def test_a_report_without_history_metadata_and_views(tmp_path):
    data = write_data(tmp_path / "data", ["a", "b", "c"], views=1)
    (data.root / "metadata.csv").unlink()
    run = write_run(tmp_path / "runs" / "bare", data)
    run.history(0).unlink()
    run.history(1).write_text("")
    page = Page(made(run))
    assert "no metadata.csv" in page.by_id["makes"]
    assert "one view number or none" in page.by_id["views"]
    assert "no learning curves" in page.by_id["training"]


def test_perfect_and_empty_masks_and_a_submission(finished, tmp_path, data):
    run = write_run(
        tmp_path / "runs" / "extreme", data, predict=lambda truth, at: truth if at % 2 else np.zeros_like(truth)
    )
    write_rows(run.submission, [("a.jpg", "1 2"), ("b.jpg", "")])
    change_record(CV, "cv", threshold=128 / 255)(run)  # as an earlier version recorded 0.5
    page = Page(made(run))
    assert "the threshold in use, 0.5;" in " ".join(page.by_id["tuning"].split())
    submission = " ".join(page.by_id["submission"].split())
    assert "No test photos are shown: the submission has no certainty.csv" in submission
    assert "No pixel is wrong." in page.by_id["gallery"]
    assert page.by_id["dice"] == "0.50000"
    assert "2 images, 1 with an empty mask" in submission
    assert f"make predict RUN={finished[0].root}" in Page(finished[2]).by_id["submission"]


def write_submission(run: RunFolder, data: DataFolder, cars: int = 10) -> dict[str, float]:
    """Test photos of two views, their masks and how certain these are."""
    shutil.copytree(data.root / "train", data.root / "test")
    for photo in list((data.root / "test").iterdir()):
        for number in range(cars):
            shutil.copy(photo, photo.with_name(f"{number:012x}_{photo.stem[-2:]}.jpg"))
        photo.unlink()
    photos = DataFolder(data.root).test
    write_rows(run.submission, [(photo.img, "1 100 200 300") for photo in photos[:-1]] + [(photos[-1].img, "")])
    certainty = {photo.img: round(0.9 + 0.004 * at, 6) for at, photo in enumerate(photos)}
    write_certainty(run.certainty, photos, np.array(list(certainty.values())))
    names, digest = fingerprint_of(photos), sha256(run.submission)
    make_submission_record(photos=names, sha256=digest).write(run.submission_record)
    return certainty


def test_the_contact_sheet_shows_the_least_sure_and_the_surest_photos(run, data):
    certainty = write_submission(run, data)
    page = Page(made(run))
    names = sorted(certainty, key=lambda img: certainty[img])
    shown = [*names[: contact_sheet.LEAST_SURE], *names[: -contact_sheet.SUREST - 1 : -1]]
    assert len(page.tiles) == len(shown) == 16
    for img, tile in zip(shown, page.tiles, strict=True):
        assert tile.startswith(f"{img}expected Dice {certainty[img]:.5f}")
    assert f"car {100 * 400 / (HEIGHT * WIDTH):.0f}\N{NO-BREAK SPACE}% of the photo" in page.tiles[0]
    assert "empty mask" in page.tiles[12]
    assert f"The mean is {np.mean(list(certainty.values())):.5f}" in " ".join(page.by_id["submission"].split())


def test_only_a_submission_of_carvanas_test_photos_goes_to_kaggle(run, data, monkeypatch):
    assert f"make predict RUN={run.root}" in Page(made(run)).by_id["next"]
    write_rows(run.submission, [("a_01.jpg", "1 2")])
    following = Page(made(run)).by_id["next"]
    assert f"make validate RUN={run.root}" in following
    assert f"make masks RUN={run.root}" in following
    assert "make submit" not in following
    monkeypatch.setattr(kaggle_names, "NAMES", hashlib.sha256(b"a_01.jpg").hexdigest())
    following = Page(made(run)).by_id["next"]
    assert f"make submit RUN={run.root}" in following
    assert "make masks" not in following


def test_a_car_fills_only_a_part_of_the_contact_sheet():
    photos = [Photo(f"{car}_{view:02d}.jpg", car, view, Path()) for car in "ab" for view in range(1, 6)]
    least_sure, surest = contact_sheet.first_and_last(pd.DataFrame({"photo": photos, "dice": np.arange(10) / 10}))
    assert [photo.img[:4] for photo in least_sure] == ["a_01", "a_02", "b_01", "b_02"]
    assert [photo.img[:4] for photo in surest] == ["b_05", "b_04", "a_05", "a_04"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run, data: run.certainty.unlink(), "no certainty.csv of the same prediction; remove .*make predict"),
        (lambda run, data: write_rows(run.submission, []), "no certainty.csv of the same prediction"),
        (lambda run, data: shutil.rmtree(data.root / "test"), "cannot be read: .* has no folder test"),
        (lambda run, data: next((data.root / "test").iterdir()).unlink(), "are not those that were predicted"),
    ],
)
def test_without_test_photos_or_their_certainty_the_page_says_why(run, data, damage, reason):
    write_submission(run, data)
    damage(run, data)
    choice = contact_sheet.choose(run, DataFolder(data.root))
    assert choice.names == set()
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize("name", ["cv", "oof_scores", "oof"])
def test_a_run_without_scores_says_how_to_score_it(run, name):
    path = getattr(run, name)
    path.unlink()
    for fold in (0, 1):
        run.best(fold).touch()
    with pytest.raises(Failure, match=rf"{path}.*make score RUN={run.root}$"):
        made(run)
    assert not run.report.exists()


def test_a_run_whose_folds_are_not_all_trained_says_which(run):
    run.cv.unlink()
    run.best(0).touch()
    with pytest.raises(
        Failure, match=rf"fold 1 is not trained; make cv RUN={run.root} trains .* alone: .*{run.best(0)}$"
    ):
        made(run)
    run.best(0).unlink()
    with pytest.raises(Failure, match=rf"folds 0, 1 are not trained; make cv RUN={run.root} trains and scores them$"):
        made(run)


def change_scores(change) -> Callable[[RunFolder], None]:
    """Damage that changes oof_scores.csv."""

    def damage(run: RunFolder) -> None:
        change(pd.read_csv(run.oof_scores, dtype={"car": str})).to_csv(run.oof_scores, index=False)

    return damage


def change_masks(code: str, leave_out: int = 0) -> Callable[[RunFolder], None]:
    """Damage that writes the same code for each mask of oof.csv.gz, and leaves some out."""
    return lambda run: write_rows(run.oof, [(img, code) for img in pd.read_csv(run.oof_scores).img[leave_out:]])


def change_record(model, name: str, **changes: object) -> Callable[[RunFolder], None]:
    """Damage that changes a record."""
    return lambda run: model.read(getattr(run, name)).model_copy(update=changes).write(getattr(run, name))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (  # the mean stays the same
            change_scores(lambda table: table.assign(dice=table["dice"].to_numpy()[::-1])),
            "oof_scores.csv gives .* come from different calls; make score RUN=.*/tiny",
        ),
        (
            change_scores(lambda table: table.drop(columns="view")),
            r"not a table of img,car,.* \(.*view.*make score RUN=.*/tiny",
        ),
        (change_scores(lambda table: table.assign(dice="good")), r"not a table of .*good.* make score RUN=.*/tiny"),
        (change_scores(lambda table: table.assign(dice=None)), "oof_scores.csv has an empty field; make score RUN="),
        (change_scores(lambda table: table[:0]), "oof_scores.csv has no rows; make score RUN=.*/tiny"),
        (change_record(CV, "cv", dice=0.99), "cv.json says dice 0.99000, .* make score RUN=.*/tiny"),
        (change_masks("1 2", leave_out=1), "oof.csv.gz has no row for .* make score RUN=.*/tiny"),
        (change_masks("1 999999"), "oof.csv.gz, .* token 2.* make score RUN=.*/tiny"),
        (change_record(Environment, "environment", fingerprint="0"), "are not those that run tiny was made from"),
    ],
)
def test_an_error_keeps_the_last_report(run, damage, reason):
    run.report.write_text("an earlier report")
    damage(run)
    with pytest.raises(Failure, match=reason):
        made(run)
    assert run.report.read_text() == "an earlier report"
    assert sorted(path.name for path in run.root.iterdir() if "report" in path.name) == ["report.html"]


def test_wrong_pixels_by_hand():
    truth = np.array([[0, 1, 1], [0, 0, 1]])
    predicted = np.array([[1, 1, 0], [0, 0, 1]])
    wrong = mistakes(truth, predicted)
    assert wrong.tolist() == [[EXTRA, RIGHT, MISSED], [RIGHT, RIGHT, RIGHT]]
    assert count(wrong) == (1, 1)
    with pytest.raises(ValueError, match="different shapes"):
        mistakes(truth, predicted.T)


def test_windows_contain_the_most_mistakes_in_their_middle():
    wrong = np.zeros((100, 200), dtype=np.uint8)
    wrong[50:54, 100:104] = MISSED  # 16 pixels
    wrong[10, 20:29] = EXTRA  # 9
    wrong[99, 199] = MISSED  # 1, in the corner
    assert worst_windows(wrong, (20, 30), limit=2) == [Window(42, 87, 20, 30), Window(0, 9, 20, 30)]
    assert worst_windows(wrong, (20, 30), limit=9)[2:] == [Window(80, 170, 20, 30)]
    assert worst_windows(wrong, (500, 500), limit=2) == [Window(0, 0, 100, 200)]
    assert worst_windows(np.zeros_like(wrong), (20, 30), limit=2) == []


def test_with_many_views_the_worst_are_shown():
    rows = [(0, view, 0.9 + view / 1000) for view in range(1, 41)]
    table = tables.by_view(pd.DataFrame(rows, columns=["fold", "view", "dice"]))
    assert table is not None
    assert table.views == list(range(1, tables.MOST_VIEWS + 1))
    assert table.left_out == 40 - tables.MOST_VIEWS
    assert [cell.shade for cell in table.rows[0][1]][::23] == [1.0, 0.0]
