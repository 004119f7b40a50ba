"""A matplotlib figure as inline SVG. Text stays text, and the colours follow the light or dark page."""

import io
import re
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# The colours of the page. matplotlib needs numbers; in the SVG they are replaced by the variables of page.css.
INK, QUIET, RULE, ACCENT, SURFACE = "#111112", "#666667", "#dddddf", "#0072b3", "#fffffe"
VARIABLES = {INK: "--ink", QUIET: "--quiet", RULE: "--rule", ACCENT: "--accent", SURFACE: "--surface"}
UNITS_PER_INCH = 72
# A chart is scaled to the width of its place: 358 pixels on a phone of 390, and the max-width of page.css on a wide
# screen. The text then has 11.6 to 15 pixels.
WIDTH, HEIGHT = 400, 250
TEXT = 13

STYLE: dict[str, Any] = {
    "svg.hashsalt": "report",  # the same ids in each call
    "svg.fonttype": "none",
    "font.size": TEXT,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": QUIET,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",  # above the axis, because horizontal text is easier to read
    "axes.titlepad": 12,
    "axes.labelpad": 6,
    "axes.spines.left": False,
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
}


def axes_of_chart(x: str, y: str) -> Axes:
    """The axes of a new chart with the names of both; to be called within ``STYLE``."""
    figure = Figure(figsize=(WIDTH / UNITS_PER_INCH, HEIGHT / UNITS_PER_INCH), layout="constrained")
    FigureCanvasSVG(figure)
    axes: Axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_title(y)
    return axes


def to_svg(axes: Axes, label: str) -> Markup:
    """A chart as an <svg> element with the colours and the font of the page; ``label`` is its text alternative."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure: Any = axes.figure
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
