"""Curves and distributions as inline SVG. Text stays text, and the colours follow the light or dark page."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

# The colours of the page. matplotlib needs numbers; in the SVG they are replaced by the variables of page.css.
INK, QUIET, RULE, ACCENT, SURFACE = "#111112", "#666667", "#dddddf", "#0072b3", "#fffffe"
VARIABLES = {INK: "--ink", QUIET: "--quiet", RULE: "--rule", ACCENT: "--accent", SURFACE: "--surface"}
# Okabe and Ito's colours: distinct for every type of colour vision, and visible on light and dark.
SERIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f8f"]
STYLES = ["-", "--", ":", "-."]

STYLE: dict[str, Any] = {
    "svg.hashsalt": "report",  # the same ids in each call
    "svg.fonttype": "none",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
}
SIZE = (7.6, 4.0)  # inches of 72 units: about the width on the page, so that the text has the size of the page's text
# Name, and the part of the images below it.
QUANTILES = [("1 %", 0.01), ("10 %", 0.10), ("median", 0.50), ("90 %", 0.90)]
BINS = 48
# Dice is drawn by -log10(1 - Dice), so that 0.99 to 0.999 is as far as 0.9 to 0.99. A perfect 1 is drawn here.
NEAREST = 1e-5
DICE_TICKS = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9999]
# The threshold curve is drawn where it is this close to its maximum.
NEAR_TOP = 0.001


def loss_curves(histories: dict[int, pd.DataFrame]) -> Markup:
    """Mean training loss of each epoch, one line per fold, on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("epoch", "training loss")
        _epochs(axes, histories)
        for at, (fold, table) in enumerate(histories.items()):
            _line(axes, at, fold, table, "loss")
        if any((table["loss"] > 0).any() for table in histories.values()):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        _legend(axes, len(histories))
        return _svg(figure, "Training loss by epoch, one line per fold")


def validation_curves(histories: dict[int, pd.DataFrame]) -> Markup:
    """Dice of the held-out images at each validated epoch, one line per fold; a dot marks the best epoch."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("epoch", "validation Dice")
        _epochs(axes, histories)
        values = pd.concat([table["dice"] for table in histories.values()]).dropna()
        for at, (fold, table) in enumerate(histories.items()):
            validated = table.dropna(subset=["dice"])
            line = _line(axes, at, fold, validated, "dice")
            kept = validated[validated["best"]].tail(1)
            axes.plot(kept["epoch"], kept["dice"], "o", color=line.get_color(), markersize=5.5, zorder=3)
        if len(values):
            _dice_scale(axes, "y", float(values.min()), float(values.max()))
        _legend(axes, len(histories))
        return _svg(figure, "Validation Dice by epoch, one line per fold")


def quantiles(dice: Sequence[float]) -> list[tuple[str, float]]:
    """The name and the value of each quantile."""
    return [(name, float(np.quantile(dice, share))) for name, share in QUANTILES]


def distribution(dice: Sequence[float]) -> Markup:
    """Histogram of the Dice of each image, with its quantiles."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("Dice of an image", "images")
        low, high = min(dice), max(dice)
        edges = _from_axis(np.linspace(float(_to_axis(low)) - 5e-3, float(_to_axis(high)) + 5e-3, BINS + 1))
        clipped = np.minimum(dice, 1 - NEAREST)
        axes.hist(clipped, edges, color=ACCENT, edgecolor=SURFACE, linewidth=0.8)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.16)  # space for the names of the quantiles
        _dice_scale(axes, "x", low, high)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        for name, value in quantiles(dice):
            _mark(axes, min(value, 1 - NEAREST), name)
        return _svg(figure, "Histogram of the Dice of each image")


def threshold_curve(thresholds: Sequence[float], dice: Sequence[float], used: float, best: float) -> Markup:
    """Mean Dice by threshold, near its maximum."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("threshold on the probability", "mean Dice of all images")
        at, values = np.asarray(thresholds, dtype=float), np.asarray(dice, dtype=float)
        near = values >= values.max() - NEAR_TOP
        near |= (at >= min(used, best) - 0.02) & (at <= max(used, best) + 0.02)
        axes.plot(at[near], values[near], color=ACCENT, linewidth=2)
        low, high = values[near].min(), values[near].max()
        height = max(high - low, 1e-5)
        axes.set_ylim(low - 0.05 * height, high + 0.25 * height)
        same = abs(used - best) < 0.002
        marks = [("used and best", used)] if same else [("used", used), ("best", best)]
        for name, threshold in marks:
            mean = float(np.interp(threshold, at, values))
            axes.plot([threshold], [mean], "o", color=INK, markersize=6, zorder=3)
            beside = "center" if same else "right" if threshold == min(used, best) else "left"
            axes.annotate(
                f"{name} {threshold:.3f}", (threshold, mean), (0, 11), textcoords="offset points", ha=beside
            )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure, "Mean Dice by threshold")


def _figure(x: str, y: str) -> tuple[Any, Any]:
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x, labelpad=8)
    # Above the axis, because horizontal text is easier to read.
    axes.set_title(y, loc="left", fontsize=12, color=QUIET, pad=12)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _epochs(axes: Any, histories: dict[int, pd.DataFrame]) -> None:
    """Let the axis show all epochs, also those that were not validated."""
    last = int(max(table["epoch"].max() for table in histories.values()))
    axes.set_xlim(1 - 0.05 * last, 1.05 * last)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))


def _line(axes: Any, at: int, fold: int, table: pd.DataFrame, column: str) -> Any:
    return axes.plot(
        table["epoch"],
        table[column],
        color=SERIES[at % len(SERIES)],
        linestyle=STYLES[at // len(SERIES) % len(STYLES)],
        marker="." if len(table) < 3 else "",
        label=f"fold {fold}",
    )[0]


def _legend(axes: Any, lines: int) -> None:
    if lines:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=min(lines, 6),
            handlelength=1.2,
            columnspacing=1.2,
            borderaxespad=0.2,
            fontsize=11,
        )


def _mark(axes: Any, value: float, name: str) -> None:
    """A vertical line with its name above it."""
    axes.axvline(value, ymax=0.93, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.annotate(name, (value, 0.95), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=11)


def _to_axis(dice: Any) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = -np.log10(np.maximum(1 - np.asarray(dice, dtype=float), NEAREST))
    return distance


def _from_axis(distance: Any) -> NDArray[np.float64]:
    dice: NDArray[np.float64] = 1 - 10 ** -np.asarray(distance, dtype=float)
    return dice


def _dice_scale(axes: Any, which: str, low: float, high: float) -> None:
    """Scale an axis by -log10(1 - Dice), from ``low`` to ``high`` with a margin."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    ends = np.array([_to_axis(low), _to_axis(high)])
    margin = max(0.04 * float(ends[1] - ends[0]), 0.01)
    limits = _from_axis([ends[0] - margin, ends[1] + margin])
    (axes.set_xscale if which == "x" else axes.set_yscale)("function", functions=(_to_axis, _from_axis))
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    axis.set_major_locator(FixedLocator(_ticks(float(limits[0]), float(limits[1]))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _ticks(low: float, high: float) -> list[float]:
    """The ticks of ``DICE_TICKS`` within an axis; round numbers if these are fewer than three."""
    chosen = [tick for tick in DICE_TICKS if low <= tick <= high]
    if len(chosen) >= 3:
        return chosen
    return [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def _svg(figure: Any, label: str) -> Markup:
    """A figure as an <svg> element with the colours and the font of the page."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', drawn)[0]
    drawn = drawn[drawn.index(">") + 1 :]
    # matplotlib's group names repeat from chart to chart. Ids that are referenced are hashes and stay.
    drawn = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)
    # A style sheet inside a chart would apply to the whole page.
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"font(-family)?: ([\d.]+px )?[^;\"]*", _font, drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable})")
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{drawn}')


def _font(found: re.Match[str]) -> str:
    """The size of a font declaration, without its family."""
    return f"font-size: {found[2].strip()}" if found[2] else "font-style: normal"
