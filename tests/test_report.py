"""The report of a run: a tiny run is made here, and the page is read as a browser reads it."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from competition import files, metrics, rle
from competition.command import Failure, run_command
from competition.data_folder import DataFolder
from competition.run.environment import record_run
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from inference.report import gallery, tables
from inference.report.__main__ import main
from inference.report.mistakes import INVENTED, MISSED, RIGHT, Window, count, mistakes, worst_windows

HEIGHT, WIDTH = 64, 96
CARS = ["00000000000a", "000000000012", "1234567890e1"]  # two of them look like numbers
HOSTILE = "<script>alert('1')</script>&\"x"
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """What of a page the tests ask for: texts by id, rows of tables, images, all attributes, open elements."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str]] = []
        self.stack: list[tuple[str, str]] = []
        self.by_id: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self.articles: list[str] = []
        self.overlays: list[NDArray[np.uint8]] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.stack == [], "elements left open"

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if tag not in VOID:
            self.stack.append((tag, given.get("id", "")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "th":
            self.headings.append("")
        if tag == "article":
            self.articles.append("")
        if tag == "img" and given.get("class") == "over":
            content = base64.b64decode(given["src"].removeprefix("data:image/png;base64,"))
            self.overlays.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")))

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append(data)
        for tag, name in self.stack:
            if name:
                self.by_id[name] = self.by_id.get(name, "") + data
            if tag in ("td", "th"):
                self.rows[-1][-1] += data.strip()
            if tag == "th":
                self.headings[-1] += data.strip()
            if tag == "article":
                self.articles[-1] += data


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
    """A truth with a part erased and a part invented, different for each image."""
    predicted = truth.copy()
    predicted[30 : 33 + at, 40:50] = 0
    predicted[2:5, 3 : 6 + 2 * at] = 1
    return predicted


def write_run(root: Path, data: DataFolder, /, **more: dict[str, object]) -> RunFolder:
    """A run of two folds with every file that the other stages promise, and more settings."""
    run = RunFolder(root)
    record_run(run, resolve({"split": {"folds": 2}, "train": {"epochs": 3}, **more}), data, "a slow processor")
    fold = {car: at % 2 for at, car in enumerate(sorted({photo.car for photo in data.train}))}
    split = pd.DataFrame(
        [(photo.img, photo.car, fold[photo.car]) for photo in data.train], columns=["img", "car", "fold"]
    )
    split.to_csv(run.folds, index=False)
    scores, codes = [], []
    for at, photo in enumerate(data.train):
        truth = data.truth(photo)
        predicted = predict(truth, at)
        counted = metrics.counts(truth, predicted)
        scores.append(
            (photo.img, photo.car, photo.view, fold[photo.car], round(counted.dice, 7), round(counted.iou, 7))
        )
        codes.append((photo.img, rle.encode(predicted)))
    table = pd.DataFrame(scores, columns=["img", "car", "view", "fold", "dice", "iou"])
    table.to_csv(run.oof_scores, index=False)
    with gzip.open(run.oof, "wt", newline="") as file:
        csv.writer(file).writerows([("img", "rle_mask"), *codes])
    run.cv.write_text(json.dumps(cv_of(table)))
    for number in (0, 1):
        run.fold(number).mkdir()
        epochs = [
            {
                "epoch": 1,
                "lr": 0.1,
                "loss": 0.5,
                "seconds": 3,
                "images_per_second": 9,
                "dice": None,
                "iou": None,
                "best": False,
            },
            {
                "epoch": 2,
                "lr": 0.1,
                "loss": 0.2,
                "seconds": 3,
                "images_per_second": 9,
                "dice": 0.91,
                "iou": 0.8,
                "best": True,
            },
            {
                "epoch": 3,
                "lr": 0.1,
                "loss": 0.1,
                "seconds": 3,
                "images_per_second": 9,
                "dice": 0.9,
                "iou": 0.8,
                "best": False,
            },
        ]
        run.history(number).write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    return run


def cv_of(table: pd.DataFrame) -> dict[str, object]:
    folds = [
        {
            "fold": int(fold),
            "cars": 1,
            "images": len(part),
            "dice": part.dice.mean(),
            "iou": part.iou.mean(),
            "threshold": 0.5,
        }
        for fold, part in table.groupby("fold")
    ]
    thresholds = np.arange(1, 256) / 256
    return {
        "dice": table.dice.mean(),
        "iou": table.iou.mean(),
        "spread": float(np.std([fold["dice"] for fold in folds])),
        "images": len(table),
        "cars": int(table.car.nunique()),
        "threshold": 0.5,
        "views": ["identity", "hflip"],
        "folds": folds,
        "gains": [
            {"what": "identity", "dice": 0.9, "over": "", "gain": None, "spread": None, "folds": None, "note": ""},
            {
                "what": "best threshold 0.438",
                "dice": 0.9,
                "over": "0.5",
                "gain": -0.00012,
                "spread": 0.00003,
                "folds": 1,
                "note": "chosen on the other folds, not used",
            },
        ],
        "tuning": {"threshold": 0.4375, "dice": 0.9, "dice_at_half": 0.89988, "gain": 0.00012, "used": False},
        "curve": {"thresholds": thresholds.tolist(), "dice": (0.9 - 0.1 * (thresholds - 0.4375) ** 2).tolist()},
    }


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", CARS)


@pytest.fixture
def run(tmp_path, data):
    return write_run(tmp_path / "runs" / "tiny", data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its report, for the tests that only look: the run, its data, the page's text."""
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
    folds = {row[0]: row for row in page.rows if row[0] in ("0", "1", "all")}
    for number, part in scores.groupby("fold"):
        worst = part.sort_values("dice").iloc[0]
        row = folds[str(number)]
        assert row[1:] == [
            str(part.car.nunique()), str(len(part)), "3", "0.500",
            f"{part.dice.mean():.5f}", f"{part.iou.mean():.5f}",
            worst.img, f"{worst.dice:.5f}",
        ]  # fmt: skip
    assert folds["all"][:3] == ["all", "3", "6"]
    assert "+0.00012" in page.by_id["tuning"]
    assert ["identity", "0.90000", ""] in page.rows
    row = ["best threshold 0.438", "0.90000", "−0.00012", "0.00003", "1 of 2", "0.5"]
    assert [*row, "chosen on the other folds, not used"] in page.rows
    views = next(row for row in page.rows if row[0] == "all folds")
    assert views[1:] == [f"{scores[scores['view'] == view].dice.mean():.4f}"[1:] for view in (1, 2)]
    makes = [row for row in page.rows if row[0].startswith("Make")]
    assert sorted(row[2] for row in makes) == sorted(f"{part.dice.mean():.5f}" for _, part in scores.groupby("car"))
    assert any("a slow processor" in text for text in page.texts)


def test_every_picture_has_its_numbers_and_its_wrong_pixels_in_colour(finished):
    run, data, html = finished
    page = Page(html)
    assert len(page.articles) == len(page.overlays) == 6  # each image once; a crop as large as the image holds it all
    scores = pd.read_csv(run.oof_scores).sort_values(["dice", "img"])
    photos = {photo.img: photo for photo in data.train}
    for article, overlay in zip(page.articles, page.overlays, strict=True):
        img = next(img for img in photos if img in article)
        truth = data.truth(photos[img]) != 0
        predicted = predict(data.truth(photos[img]), sorted(photos).index(img)) != 0
        missed = (overlay == (*gallery.MISSED_COLOUR, 255)).all(axis=2)
        invented = (overlay == (*gallery.INVENTED_COLOUR, 255)).all(axis=2)
        np.testing.assert_array_equal(missed, truth & ~predicted)
        np.testing.assert_array_equal(invented, ~truth & predicted)
        assert missed.any() and invented.any()
        np.testing.assert_array_equal(overlay[..., 3] != 0, missed | invented)
        said = " ".join(article.split())
        score = scores[scores.img == img].iloc[0]
        assert f"missed {missed.sum()} px invented {invented.sum()} px" in said
        assert f"Dice {score.dice:.5f} IoU {score.iou:.5f}" in said
        assert f"fold {score.fold} view {score['view']:02d} car {photos[img].car}" in said
    assert "2011 Make1 Model1" in " ".join(page.articles)


def test_the_worst_come_first_and_no_car_fills_the_list():
    rows = [
        (f"{car}_{view:02d}.jpg", car, 0.5 + 0.1 * at + 0.001 * view)
        for at, car in enumerate("abcdef")
        for view in range(1, 17)
    ]
    worst, usual, best = gallery.choose(
        pd.DataFrame(rows, columns=["img", "car", "dice"]).sample(frac=1, random_state=1)
    )
    assert worst[2][:4] == ["a_01.jpg", "a_02.jpg", "a_03.jpg", "b_01.jpg"]
    assert len(worst[2]) == gallery.WORST
    assert usual[2] == ["c_16.jpg", "d_04.jpg"]  # d's first three are among the worst
    assert best[2] == ["f_16.jpg", "e_16.jpg"]


def test_nothing_is_fetched(finished):
    html = finished[2]
    page = Page(html)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import|https?:", html)


def test_hostile_names_stay_text(tmp_path):
    data = write_data(tmp_path / "data", ["<b>bold</b>".replace("/", "|"), "b&amp;'", "c"])
    text = (data.root / "metadata.csv").read_text().replace("Make0", HOSTILE.replace('"', '""'))
    (data.root / "metadata.csv").write_text(text)
    html = made(write_run(tmp_path / "runs" / "<i>run<i>", data))
    page = Page(html)
    assert not {"script", "b>bold<|b"} & set(page.tags)
    assert "<i>run" not in html
    assert "<b>bold<" not in html
    assert any(HOSTILE in row[0] for row in page.rows)
    assert any("<b>bold<|b>" in article for article in page.articles)


def test_the_same_files_give_the_same_page(finished):
    run, _, html = finished
    assert made(run) == html


def write_together(root: Path, data: DataFolder) -> RunFolder:
    """A run of the results of two, z and a, of different inputs and weights."""
    members = [
        write_run(root / "z", data),
        write_run(root / "a", data, input={"width": 512}, augment={"flip": 0.25}, train={"epochs": 2}),
    ]
    together = write_run(root / "z+a", data)
    names = [str(member.root) for member in members]
    environment = json.loads(together.environment.read_text())
    files.write_json(together.environment, {**environment, "runs": names})
    cv = json.loads(together.cv.read_text())
    cv["member_weights"] = dict(zip(names, (0.25, 0.75), strict=True))
    cv["folds"][0]["member_weights"] = dict(zip(names, (0.0, 1.0), strict=True))
    cv["folds"][1]["member_weights"] = dict(zip(names, (0.5, 0.5), strict=True))
    files.write_json(together.cv, cv)
    for number in (0, 1):
        shutil.rmtree(together.fold(number))
    return together


def test_every_run_of_several_is_described(tmp_path, data):
    page = Page(made(write_together(tmp_path / "runs", data)))
    start = page.rows.index(["run", "z", "a"])
    assert page.rows[start : start + 4] == [
        ["run", "z", "a"],
        ["Weight", "0.25", "0.75"],
        ["Input", "384 × 256 pixels, resized", "512 × 256 pixels, resized"],
        ["Training", "3 epochs, batches of 8, adamw", "2 epochs, batches of 8, adamw"],
    ]
    named = [row[0] for row in page.rows]
    assert "Network" not in named, "what is the same stands once, above the table"
    assert page.texts.count("U-Net, width 32, depth 4, stem 1") == 1
    assert ["augment.flip", "0.5", "0.25"] in page.rows
    assert [row[1:6] for row in page.rows if row[0] in ("0", "1", "all")] == [
        ["2", "4", "3, 3", "0, 1", "0.500"],
        ["1", "2", "3, 3", "0.5, 0.5", "0.500"],
        ["3", "6", "", "0.25, 0.75", "0.500"],
    ]
    training = " ".join(page.by_id["training"].split())
    commands = [f"make report RUN={tmp_path / 'runs' / name}" for name in "za"]
    assert training.endswith(f"answer here together: {', '.join(commands)}.")


def test_one_run_has_nothing_to_be_compared_with(finished):
    page = Page(finished[2])
    assert not {"run", "Weight", "augment.flip", "python"} & {row[0] for row in page.rows}
    assert page.texts.count("augment.flip") == page.texts.count("python") == 1


def test_a_cv_of_other_runs_is_refused(tmp_path, data):
    together = write_together(tmp_path / "runs", data)
    files.write_json(together.cv, {**json.loads(together.cv.read_text()), "member_weights": {"z": 1}})
    with pytest.raises(Failure, match=r"cv.json has no weights of .*/z and .*/a; make score RUN=.*/z\+a writes it"):
        made(together)


def test_what_a_training_began_with_is_said(tmp_path, data):
    """Seconds are rounded to minutes before hours are taken from them."""
    learned = write_run(
        tmp_path / "runs" / "next",
        data,
        network={"init_from": "first"},
        data={"pseudo": "first"},
        loss={"boundary": 3, "dice": 0.5, "targets": "hard"},
    )
    for number in (0, 1):
        history = learned.history(number)
        history.write_text(history.read_text().replace('"seconds": 3', '"seconds": 1199.9'))
    page = Page(made(learned))
    assert "U-Net, width 32, depth 4, stem 1, from run first" in page.texts
    assert "2 folds of cars, those of run first" in page.texts
    assert any(text.endswith("), and pseudo-labels of run first") for text in page.texts)
    assert "binary cross-entropy + 0.5 × (1 − Dice), weight 3 near the outline, hard targets" in page.texts
    assert "2 h 0 min for 6 epochs" in page.texts


def test_what_is_not_there_is_left_out(tmp_path):
    data = write_data(tmp_path / "data", ["a", "b", "c"], views=1)
    (data.root / "metadata.csv").unlink()
    run = write_run(tmp_path / "runs" / "bare", data)
    run.history(0).unlink()
    run.history(1).write_text("")
    page = Page(made(run))
    assert "no metadata.csv" in page.by_id["makes"]
    assert "tell no views apart" in page.by_id["tta"]
    assert "no learning curves" in page.by_id["training"]


def test_the_cars_that_are_folded_away_have_a_table_with_names_too(tmp_path):
    data = write_data(tmp_path / "data", [f"car{number}" for number in range(10)], views=1)
    page = Page(made(write_run(tmp_path / "runs" / "many", data)))
    assert [row for row in page.rows if row[0] == "car"] == [["car", "images", "Dice", "IoU", "1 − Dice"]] * 2
    assert any("2 better cars" in text for text in page.texts)


def test_no_heading_and_no_class_is_empty(finished):
    page = Page(finished[2])
    assert ("span", "class", "") not in page.attributes
    assert "" not in page.headings


def test_perfect_and_empty_masks_can_be_drawn(tmp_path, data, monkeypatch):
    monkeypatch.setitem(globals(), "predict", lambda truth, at: truth if at % 2 else np.zeros_like(truth))
    page = Page(made(write_run(tmp_path / "runs" / "extreme", data)))
    assert "Not one pixel is wrong." in page.by_id["gallery"]
    assert page.by_id["dice"] == "0.50000"


def test_the_submission_is_summed_up(run):
    assert f"make predict RUN={run.root}" in Page(made(run)).by_id["submission"]
    with gzip.open(run.submission, "wt", newline="") as file:
        csv.writer(file).writerows([("img", "rle_mask"), ("a.jpg", "1 2"), ("b.jpg", "")])
    assert "2 images, 1 of them with an empty mask" in " ".join(Page(made(run)).by_id["submission"].split())


@pytest.mark.parametrize("name", ["cv.json", "oof_scores.csv", "oof.csv.gz"])
def test_an_unscored_run_says_how_to_score_it(run, name, monkeypatch, capsys):
    (run.root / name).unlink()
    monkeypatch.setattr("sys.argv", ["report", "--run", str(run.root)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1
    assert name in said
    assert f"make score RUN={run.root}" in said
    assert not run.report.exists()


def damage_scores(run: RunFolder) -> None:
    table = pd.read_csv(run.oof_scores, dtype={"car": str})
    table["dice"] = table["dice"].to_numpy()[::-1]  # the mean is the same, the images are not
    table.to_csv(run.oof_scores, index=False)


def damage_column(run: RunFolder) -> None:
    pd.read_csv(run.oof_scores, dtype={"car": str}).drop(columns="view").to_csv(run.oof_scores, index=False)


def damage_number(run: RunFolder) -> None:
    run.oof_scores.write_text(run.oof_scores.read_text() + "a_01.jpg,a,1,0,good,0.9\n")


def empty_scores(run: RunFolder) -> None:
    run.oof_scores.write_text(run.oof_scores.read_text().splitlines()[0] + "\n")


def damage_mean(run: RunFolder) -> None:
    run.cv.write_text(json.dumps(json.loads(run.cv.read_text()) | {"dice": 0.99}))


def damage_oof(run: RunFolder) -> None:
    with gzip.open(run.oof, "rt") as file:
        lines = file.read().splitlines()
    with gzip.open(run.oof, "wt") as file:
        file.write("\n".join(lines[:-1]) + "\n")


def damage_code(run: RunFolder) -> None:
    with gzip.open(run.oof, "wt", newline="") as file:
        images = pd.read_csv(run.oof_scores).img
        csv.writer(file).writerows([("img", "rle_mask"), *((img, "1 999999") for img in images)])


def damage_cv(run: RunFolder) -> None:
    run.cv.write_text('{"dice": 0.9')


def older_cv(run: RunFolder) -> None:
    cv = json.loads(run.cv.read_text())
    del cv["gains"]
    run.cv.write_text(json.dumps(cv))


def damage_history(run: RunFolder) -> None:
    run.history(0).write_text('{"epoch": 1}\n')


def damage_environment(run: RunFolder) -> None:
    content = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps(content | {"fingerprint": "0"}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_scores, "oof_scores.csv gives .* come from different calls; make score RUN=.*/tiny"),
        (
            damage_column,
            r"oof_scores.csv is not a table of img,car,view,fold,dice,iou \(.*view.*make score RUN=.*/tiny",
        ),
        (damage_number, r"oof_scores.csv is not a table of .*good.* make score RUN=.*/tiny"),
        (empty_scores, "oof_scores.csv has no rows; make score RUN=.*/tiny"),
        (damage_mean, "cv.json says dice 0.99000, .* make score RUN=.*/tiny"),
        (damage_oof, "oof.csv.gz has no row for .* make score RUN=.*/tiny"),
        (damage_code, "oof.csv.gz, .* token 2.* make score RUN=.*/tiny"),
        (damage_cv, "cv.json is not JSON"),
        (older_cv, "cv.json has no 'gains'; make score RUN=.*/tiny writes it again"),
        (damage_history, "history.jsonl line 1 .*loss"),
        (damage_environment, "are not those that run tiny was made from"),
    ],
)
def test_a_failure_keeps_the_report_there_is(run, damage, said):
    run.report.write_text("the page of yesterday")
    damage(run)
    with pytest.raises(Failure, match=said):
        main(["--run", str(run.root)])
    assert run.report.read_text() == "the page of yesterday"
    assert sorted(path.name for path in run.root.iterdir() if "report" in path.name) == ["report.html"]


def test_wrong_pixels_by_hand():
    truth = np.array([[0, 1, 1], [0, 0, 1]])
    predicted = np.array([[1, 1, 0], [0, 0, 1]])
    wrong = mistakes(truth, predicted)
    assert wrong.tolist() == [[INVENTED, RIGHT, MISSED], [RIGHT, RIGHT, RIGHT]]
    assert count(wrong) == (1, 1)
    with pytest.raises(ValueError, match="different shapes"):
        mistakes(truth, predicted.T)


def test_windows_hold_the_most_and_have_it_in_their_middle():
    wrong = np.zeros((100, 200), dtype=np.uint8)
    wrong[50:54, 100:104] = MISSED  # 16 pixels
    wrong[10, 20:29] = INVENTED  # 9
    wrong[99, 199] = MISSED  # 1, in the corner
    assert worst_windows(wrong, (20, 30), limit=2) == [Window(42, 87, 20, 30), Window(0, 9, 20, 30)]
    assert worst_windows(wrong, (20, 30), limit=9)[2:] == [Window(80, 170, 20, 30)]
    assert worst_windows(wrong, (500, 500), limit=2) == [Window(0, 0, 100, 200)]
    assert worst_windows(np.zeros_like(wrong), (20, 30), limit=2) == []


def test_only_the_worst_of_many_views_are_tabled():
    rows = [(0, view, 0.9 + view / 1000) for view in range(1, 41)]
    table = tables.by_view(pd.DataFrame(rows, columns=["fold", "view", "dice"]))
    assert table is not None
    assert table.views == list(range(1, tables.MOST_VIEWS + 1))
    assert table.left_out == 40 - tables.MOST_VIEWS
    assert [cell.shade for cell in table.rows[0][1]][::23] == [1.0, 0.0]
