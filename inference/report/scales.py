"""The logarithmic axes of the charts and their ticks: round numbers that are not too close to each other."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

# Smallest distance of two ticks, as a part of the axis: a number is wide, and a line of text is low.
APART = {"x": 1 / 6, "y": 1 / 9}
FEWEST = 3  # ticks; else round numbers of a linear axis are taken
# Dice is drawn by -log10(1 - Dice), so that 0.99 to 0.999 is as far as 0.9 to 0.99. A perfect 1 is drawn here.
NEAREST = 1e-5
# The roundest numbers first.
DICE_TICKS = [
    *(0.0, 0.9, 0.99, 0.999, 0.9999),
    *(0.5, 0.95, 0.995, 0.9995),
    *(0.8, 0.98, 0.998, 0.7, 0.97, 0.997, 0.3),
]
LOG_TICKS = [digit * 10.0**exponent for digit in (1, 2, 5) for exponent in range(-8, 5)]


def plain(value: float) -> str:
    """A number without an exponent and without zeros at its end."""
    return np.format_float_positional(float(f"{value:.6g}"), trim="-")


def ticks(
    wanted: Iterable[float], low: float, high: float, apart: float, scale: Callable[[Any], Any] = np.asarray
) -> list[float]:
    """The ticks of an axis from ``low`` to ``high``: those wanted that fit in, else round numbers.

    Args:
        wanted: in the order of preference.
        low: the lower end.
        high: the upper end.
        apart: the smallest distance of two ticks, as a part of the axis.
        scale: what the axis is linear in.
    """
    nearest = apart * float(scale(high) - scale(low))

    def fitting(candidates: Iterable[float]) -> list[float]:
        chosen: list[float] = []
        for tick in candidates:
            if low <= tick <= high and all(abs(scale(tick) - scale(other)) >= nearest for other in chosen):
                chosen.append(tick)
        return sorted(chosen)

    chosen = fitting(wanted)
    if len(chosen) >= FEWEST:
        return chosen
    for most in range(int(1 / apart), 1, -1):
        located = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
        equidistant = [float(tick) for tick in located if low <= tick <= high]
        if len(fitting(equidistant)) == len(equidistant) > 1:
            return equidistant
    return chosen


def loss_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, a little longer if it then ends at a tick."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    longer = (high / low) ** 0.05
    chosen = ticks(LOG_TICKS, low / longer, high * longer, APART["y"], np.log10)
    axes.set_ylim(min(low, *chosen), max(high, *chosen))
    _set_ticks(axes.yaxis, chosen)


def dice_scale(axes: Axes, which: str, low: float, high: float) -> None:
    """Scale the ``which`` axis, x or y, by -log10(1 - Dice), from ``low`` to ``high`` with a margin."""
    ends = np.array([to_scale(low), to_scale(high)])
    margin = max(0.04 * float(ends[1] - ends[0]), 0.01)
    limits = from_scale([ends[0] - margin, ends[1] + margin])
    (axes.set_xscale if which == "x" else axes.set_yscale)("function", functions=(to_scale, from_scale))
    (axes.set_xlim if which == "x" else axes.set_ylim)(float(limits[0]), float(limits[1]))
    chosen = ticks(DICE_TICKS, float(limits[0]), float(limits[1]), APART[which], to_scale)
    _set_ticks(axes.xaxis if which == "x" else axes.yaxis, chosen)


def to_scale(dice: Any) -> NDArray[np.float64]:
    """-log10(1 - Dice)."""
    distance: NDArray[np.float64] = -np.log10(np.maximum(1 - np.asarray(dice, dtype=float), NEAREST))
    return distance


def from_scale(distance: Any) -> NDArray[np.float64]:
    """The Dice of ``to_scale``."""
    dice: NDArray[np.float64] = 1 - 10 ** -np.asarray(distance, dtype=float)
    return dice


def _set_ticks(axis: Axis, at: list[float]) -> None:
    axis.set_major_locator(FixedLocator(at))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
