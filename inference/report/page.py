"""The page: all results of the report, rendered with its template."""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.run.records import CV
from inference.report import charts, tables
from inference.report.facts import all_settings, facts, versions
from inference.report.gallery import gallery, view_thumbnails
from inference.report.results import Results

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Submission:
    """Facts about the submission file."""

    rows: int
    empty: int
    megabytes: float


def render(results: Results, data: DataFolder) -> str:
    """The page as HTML; equal files give an equal page."""
    # First, because it finds errors in the files before anything is drawn.
    chapters = gallery(results, data)
    scores, cv = results.scores, results.cv
    views = tables.by_view(scores)
    context = {
        "run": results.run.name,
        "called": results.run.called,
        "cv": cv,
        "images": len(scores),
        "cars": scores["car"].nunique(),
        "folds": tables.by_fold(results),
        "members": [member.run.name for member in results.members],
        "members_called": [member.run.called for member in results.members],
        "facts": facts(results),
        "settings": all_settings(results),
        "versions": versions(results),
        "curves": _learning_curves(results),
        "distribution": charts.distribution(scores["dice"].tolist()),
        "quantiles": charts.quantiles(scores["dice"].tolist()),
        "threshold_curve": _threshold_curve(cv),
        "views": views,
        "thumbnails": view_thumbnails(data, views.views) if views else {},
        "makes": tables.by_make(scores),
        "ranked_cars": tables.by_car(scores),
        "submission": _submission(results),
        "chapters": chapters,
    }
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"score": _score, "whole": _whole, "signed": _signed}
    css = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return templates.get_template("page.html.j2").render(context, css=css)


def _learning_curves(results: Results) -> list[Markup]:
    """Loss and validation curves; empty without a history, and for several runs, whose own reports show them."""
    histories = results.members[0].histories
    if len(results.members) > 1 or not histories:
        return []
    return [charts.loss_curves(histories), charts.validation_curves(histories)]


def _threshold_curve(cv: CV) -> Markup:
    return charts.threshold_curve(cv.curve.thresholds, cv.curve.dice, cv.threshold, cv.tuning.threshold)


def _submission(results: Results) -> Submission | None:
    """Count the rows of the submission file; None if there is none."""
    path = results.run.submission
    if not path.is_file():
        return None
    rows = empty = 0
    for row in tqdm(read_rows(path), desc="submission", unit="image", disable=None, leave=False):
        rows += 1
        empty += not row.rle
    return Submission(rows, empty, path.stat().st_size / 1e6)


def _score(value: float) -> str:
    """A Dice or an IoU with five digits, as on the leaderboard."""
    return f"{value:.5f}"


def _whole(value: int) -> str:
    return f"{value:,}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("-", "−")
