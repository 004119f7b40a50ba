"""The page: a list of sections, each with its own template, and the values that they show.

To add a section: a line in ``SECTIONS``, its template in ``sections/``, and its values in ``render``.
"""

from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.hint import hint
from inference.engine.host_masks import level_of, threshold_of
from inference.report import charts, contact_sheet, tables
from inference.report.facts import all_settings, facts, versions
from inference.report.gallery import gallery, predictions, view_thumbnails
from inference.report.results import Results
from inference.report.submission import read_submission
from inference.report.suspects import measure

HERE = Path(__file__).parent
# The name of each section's template and its title, in the order of the page and of its contents.
SECTIONS = {
    "summary": "Summary",
    "folds": "Scores by fold",
    "training": "Training",
    "scores": "Scores and threshold",
    "gains": "Gain of each part",
    "views": "Scores by view",
    "makes": "Scores by make and car",
    "gallery": "Images and mistakes",
    "test": "Test photos",
    "next": "Next steps",
}


def render(results: Results, data: DataFolder) -> str:
    """The page as HTML; equal files give an equal page, but for the form of the commands in it."""
    run, scores, cv = results.run, results.scores, results.cv
    # First, because these find errors in the files before anything is drawn.
    predicted = predictions(results, data)
    try:
        measured = measure(predicted.items(), {photo.img: photo for photo in data.train}, data)
    except ValueError as error:
        raise Failure(f"{run.oof}, {error}; {hint('score', RUN=run.called)}") from error
    chapters = gallery(results, data, predicted, measured)
    choice = contact_sheet.choose(run, data)
    submission = read_submission(run, choice.names)
    # For several runs, the curves are in their own reports.
    histories = results.members[0].histories if len(results.members) == 1 else {}
    dice, views = scores["dice"].tolist(), tables.by_view(scores)
    context = {
        "run": run.name,
        "hint": partial(hint, RUN=run.called),
        "cv": cv,
        "images": len(scores),
        "cars": scores["car"].nunique(),
        "summary": tables.summary(scores, measured),
        "folds": tables.by_fold(results),
        "members": [member.run.name for member in results.members],
        "reports_of_members": [hint("report", RUN=member.run.called) for member in results.members],
        "both": hint("score", RUN=None, RUNS=[run.called, "other"]),
        "facts": facts(results),
        "settings": all_settings(results),
        "versions": versions(results),
        "first_stage": len(results.members) == 1 and results.members[0].settings.first_stage.epochs,
        "trainings": tables.trainings(histories),
        "series": charts.series(histories).values(),
        "loss_curves": tables.several_epochs(histories, "loss") and charts.loss_curves(histories),
        "validation_curves": tables.several_epochs(histories, "dice") and charts.validation_curves(histories),
        "distribution": charts.distribution(dice),
        "quantiles": charts.quantiles(dice),
        "threshold_curve": charts.threshold_curve(
            cv.curve.thresholds, cv.curve.dice, cv.threshold, cv.tuning.threshold
        ),
        "views": views,
        "thumbnails": view_thumbnails(data, views.views) if views else {},
        "makes": tables.by_make(scores),
        "ranked_cars": tables.by_car(scores),
        "chapters": chapters,
        "submission": submission,
        "choice": choice,
        "sheet": contact_sheet.draw(choice, submission.chosen if submission else {}),
    }
    css = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return _templates().get_template("page.html.j2").render(context, css=css, sections=SECTIONS)


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "score": _score,
        "whole": _whole,
        "signed": _signed,
        "percent": _percent,
        "threshold": _threshold,
    }
    return templates


def _score(value: float) -> str:
    """A Dice or an IoU with five digits, as on the leaderboard."""
    return f"{value:.5f}"


def _whole(value: int) -> str:
    return f"{value:,}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _threshold(value: float) -> str:
    """A threshold as it would be set: an earlier version recorded 0.5 as 128 / 255."""
    return f"{threshold_of(level_of(value)):g}"
