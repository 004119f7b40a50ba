"""The charts of the page: learning curves, the distribution of the Dice, and the Dice by threshold."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from inference.report.scales import NEAREST, dice_scale, from_scale, loss_scale, plain, to_scale
from inference.report.svg import ACCENT, INK, STYLE, SURFACE, TEXT, axes_of_chart, to_svg

# Okabe and Ito's colours: distinct for every type of colour vision. Those with the most contrast come first.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8f8f8f", "#e69f00", "#56b4e9"]
DASHES = ["solid", "dashed", "dotted"]  # names in matplotlib and in CSS
# Name, and the part of the images below it.
QUANTILES = [("1 %", 0.01), ("10 %", 0.10), ("50 %", 0.50), ("90 %", 0.90)]
BINS = 48
# The threshold curve is drawn where it is this close to its maximum.
NEAR_TOP = 0.001


class Series(NamedTuple):
    """How a fold is drawn."""

    name: str
    colour: str
    dash: str


def series(folds: Iterable[int]) -> dict[int, Series]:
    """A different line for each fold; the page has the legend."""
    return {
        fold: Series(f"fold {fold}", COLOURS[at % len(COLOURS)], DASHES[at // len(COLOURS) % len(DASHES)])
        for at, fold in enumerate(folds)
    }


def loss_curves(histories: dict[int, pd.DataFrame]) -> Markup:
    """Mean training loss of each epoch, one line per fold, on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        axes = axes_of_chart("epoch", "training loss")
        _lines(axes, histories, "loss")
        if any((table["loss"] > 0).any() for table in histories.values()):
            loss_scale(axes)
        return to_svg(axes, "Training loss by epoch, one line per fold")


def validation_curves(histories: dict[int, pd.DataFrame]) -> Markup:
    """Dice of the held-out images at each validated epoch, one line per fold; a dot marks the best epoch."""
    with mpl.rc_context(STYLE):
        axes = axes_of_chart("epoch", "validation Dice")
        _lines(axes, histories, "dice")
        for line, table in zip(axes.lines, histories.values(), strict=True):
            kept = table[table["best"]].tail(1)
            axes.plot(kept["epoch"], kept["dice"], "o", color=line.get_color(), markersize=5.5, zorder=3)
        values = pd.concat([table["dice"] for table in histories.values()]).dropna()
        dice_scale(axes, "y", float(values.min()), float(values.max()))
        return to_svg(axes, "Validation Dice by epoch, one line per fold")


def quantiles(dice: Sequence[float]) -> list[tuple[str, float]]:
    """The name and the value of each quantile."""
    return [(name, float(np.quantile(dice, share))) for name, share in QUANTILES]


def distribution(dice: Sequence[float]) -> Markup:
    """Histogram of the Dice of each image, with its median."""
    with mpl.rc_context(STYLE):
        axes = axes_of_chart("Dice of an image", "images")
        low, high = min(dice), max(dice)
        edges = from_scale(np.linspace(float(to_scale(low)) - 5e-3, float(to_scale(high)) + 5e-3, BINS + 1))
        axes.hist(np.minimum(dice, 1 - NEAREST), edges.tolist(), color=ACCENT, edgecolor=SURFACE, linewidth=0.6)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.16)  # space for the name of the line
        dice_scale(axes, "x", low, high)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        median = min(float(np.median(dice)), 1 - NEAREST)
        axes.axvline(median, ymax=0.9, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate("median", (median, 0.92), xycoords=("data", "axes fraction"), ha="center", fontsize=TEXT)
        return to_svg(axes, "Histogram of the Dice of each image")


def threshold_curve(thresholds: Sequence[float], dice: Sequence[float], used: float, best: float) -> Markup:
    """Mean Dice by threshold, near its maximum; a dot marks the one in use, and a ring the best one."""
    with mpl.rc_context(STYLE):
        axes = axes_of_chart("threshold on the probability", "mean Dice of all images")
        at, values = np.asarray(thresholds, dtype=float), np.asarray(dice, dtype=float)
        near = values >= values.max() - NEAR_TOP
        near |= (at >= min(used, best) - 0.02) & (at <= max(used, best) + 0.02)
        axes.plot(at[near], values[near], color=ACCENT, linewidth=2)
        axes.margins(y=0.15)
        for threshold, size, fill in ((used, 6, INK), (best, 10, "none")):
            mean = float(np.interp(threshold, at, values))
            axes.plot([threshold], [mean], "o", markersize=size, markerfacecolor=fill, markeredgecolor=INK, zorder=3)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        return to_svg(axes, "Mean Dice by threshold")


def _lines(axes: Axes, histories: dict[int, pd.DataFrame], column: str) -> None:
    """A line for each fold through the epochs that have a value, on an axis of all epochs."""
    for fold, (_, colour, dash) in series(histories).items():
        table = histories[fold].dropna(subset=[column])
        marker = "." if len(table) < 3 else ""
        axes.plot(table["epoch"], table[column], color=colour, linestyle=dash, marker=marker)
    last = int(max(table["epoch"].max() for table in histories.values()))
    axes.set_xlim(1 - 0.05 * last, 1.05 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
