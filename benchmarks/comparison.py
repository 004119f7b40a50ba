"""Tables of an ablation: gains paired by fold, with their standard deviation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.variants import Changes


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        variant: name.
        changes: its changes to the preset.
        input: width and height.
        epochs: of each training.
        images_per_second: of the training.
        dice: of each network.
        gains: over the preset, for each fold.
    """

    variant: str
    changes: Changes
    input: str
    epochs: int
    images_per_second: float
    dice: Sequence[float]
    gains: Sequence[float]

    @property
    def figures(self) -> dict[str, float | None]:
        """Means and standard deviations over the networks; None if there are too few."""
        return {
            "Dice": statistics.fmean(self.dice),
            "spread": spread(self.dice),
            "gain": statistics.fmean(self.gains) if self.gains else None,
            "spread of the gain": spread(self.gains),
        }


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """The differences for each fold."""
    return [value - other for value, other in zip(values, others, strict=True)]


def cells(row: Row) -> dict[str, str]:
    """The cells of a row, by column."""
    figures = row.figures
    return {
        "variant": row.variant,
        "input": row.input,
        "epochs": str(row.epochs),
        "images/s": f"{row.images_per_second:.1f}",
        "Dice": shown(figures["Dice"], ".5f"),
        "spread": shown(figures["spread"], ".5f"),
        "gain": shown(figures["gain"], "+.5f"),
        "std of the gain": shown(figures["spread of the gain"], ".5f"),
        "change": " ".join(row.changes),
    }


def shown(value: float | None, form: str) -> str:
    """A formatted number; empty for None."""
    return "" if value is None else format(value, form)


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    lines = [list(cells(rows[0])), *(list(cells(row).values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *numbers, last in lines:
        middle = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        print("  ".join(["", first.ljust(widths[0]), *middle, last]).rstrip())


def print_markdown(rows: Sequence[Row]) -> None:
    """Print the rows as a Markdown table."""
    names = list(cells(rows[0]))
    lines = [names, ["---"] * len(names)]
    for row in rows:
        *numbers, change = cells(row).values()
        lines.append([*numbers, f"`{change}`" if change else ""])
    for line in lines:
        print(f"| {' | '.join(line)} |")
