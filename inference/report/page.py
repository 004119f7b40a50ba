"""The page: everything the report has found out, through its template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from competition.data_folder import DataFolder, read_rle_rows
from competition.settings import Settings, flat
from inference.report import charts, tables
from inference.report.gallery import gallery, view_thumbnails
from inference.report.results import Results

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Submission:
    """What the submission file holds."""

    rows: int
    empty: int
    megabytes: float


def render(results: Results, data: DataFolder) -> str:
    """The whole page as HTML, the same text for the same files.

    Raises:
        Failure: what ``gallery`` raises.
    """
    # First, because it finds what is wrong with the files before anything is drawn.
    chapters = gallery(results, data)
    scores, cv = results.scores, results.cv
    views = tables.by_view(scores)
    context = {
        "run": results.run.name,
        "cv": cv,
        "images": len(scores),
        "cars": scores["car"].nunique(),
        "folds": tables.by_fold(results),
        "facts": facts(results),
        "settings": flat(results.settings),
        "environment": results.environment,
        "histories": results.histories,
        "loss_curves": charts.loss_curves(results.histories) if results.histories else None,
        "validation_curves": charts.validation_curves(results.histories) if results.histories else None,
        "distribution": charts.distribution(scores["dice"].tolist()),
        "quantiles": charts.quantiles(scores["dice"].tolist()),
        "threshold_curve": _threshold_curve(cv),
        "views": views,
        "thumbnails": view_thumbnails(results, data, views.views) if views else {},
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


def facts(results: Results) -> list[tuple[str, str]]:
    """What was trained, on what, with what: (name, value) for the head of the page."""
    settings, environment = results.settings, results.environment
    return [
        ("Network", _network(settings)),
        ("Input", f"{settings.input.width} × {settings.input.height} pixels, {_fit(settings)}"),
        ("Loss", _loss(settings)),
        ("Training", f"{settings.train.epochs} epochs, {_batch(settings)}, {settings.train.optimizer}"),
        ("Learning rate", f"{settings.train.lr:g}, {settings.train.schedule}"),
        ("Split", f"{len(results.folds)} folds of cars, seed {settings.seed}"),
        ("Test-time views", ", ".join(results.cv["views"])),
        ("Data", f"{environment.get('data', 'unknown')} ({environment.get('fingerprint', 'unknown')})"),
        ("Device", str(environment.get("device", "unknown"))),
        ("Code", f"revision {environment.get('git') or 'unknown'}"),
        ("Time in training", _hours(results)),
        ("Run made", str(environment.get("created", "unknown")).replace("T", " ").replace("+00:00", " UTC")),
    ]


def _network(settings: Settings) -> str:
    network = settings.network
    if network.name == "unet":
        return f"U-Net, width {network.width}, depth {network.depth}, stem {network.stem}"
    start = {"hub": "pretrained", "none": "from scratch"}.get(network.weights, network.weights)
    return f"U-Net on {network.encoder}, {start}"


def _fit(settings: Settings) -> str:
    return {"resize": "resized", "pad": "padded"}[settings.input.fit]


def _loss(settings: Settings) -> str:
    terms = {"binary cross-entropy": settings.loss.bce, "(1 − Dice)": settings.loss.dice}
    return " + ".join(name if weight == 1 else f"{weight:g} × {name}" for name, weight in terms.items() if weight)


def _batch(settings: Settings) -> str:
    train = settings.train
    return f"batches of {train.batch_size}" + (f" × {train.accumulate}" if train.accumulate > 1 else "")


def _hours(results: Results) -> str:
    """The time that the epochs of all folds took together."""
    seconds = sum(float(table["seconds"].sum()) for table in results.histories.values())
    epochs = sum(len(table) for table in results.histories.values())
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min for {epochs} epochs" if epochs else "not recorded"


def _threshold_curve(cv: dict[str, Any]) -> Markup:
    curve = cv["curve"]
    return charts.threshold_curve(curve["thresholds"], curve["dice"], cv["threshold"], cv["tuning"]["threshold"])


def _submission(results: Results) -> Submission | None:
    """Read the submission file through; None where there is none."""
    path = results.run.submission
    if not path.is_file():
        return None
    rows = empty = 0
    for _, _, code in tqdm(read_rle_rows(path), desc="submission", unit="image", disable=None, leave=False):
        rows += 1
        empty += not code
    return Submission(rows, empty, path.stat().st_size / 1e6)


def _score(value: float) -> str:
    """A Dice or an IoU, at the digits in which rivals differ."""
    return f"{value:.5f}"


def _whole(value: int) -> str:
    return f"{value:,}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("-", "−")
