"""Variants compared with what they vary: paired by fold, with the spread, as a table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.variants import Changes


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        variant: its name.
        changes: what it sets over the preset.
        input: width and height.
        epochs: of each network.
        images_per_second: of the training.
        dice: of each network.
        gains: over the preset, fold by fold.
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
        """Mean and spread over the networks; None where there are too few of them."""
        return {
            "Dice": statistics.fmean(self.dice),
            "spread": spread(self.dice),
            "gain": statistics.fmean(self.gains) if self.gains else None,
            "spread of the gain": spread(self.gains),
        }


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of which these values are a sample; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """The differences, fold by fold."""
    return [value - other for value, other in zip(values, others, strict=True)]


def cells(row: Row) -> dict[str, str]:
    """A row as text, by column."""
    figures = row.figures
    return {
        "variant": row.variant,
        "input": row.input,
        "epochs": str(row.epochs),
        "images/s": f"{row.images_per_second:.1f}",
        "Dice": shown(figures["Dice"], ".5f"),
        "spread": shown(figures["spread"], ".5f"),
        "gain": shown(figures["gain"], "+.5f"),
        "its spread": shown(figures["spread of the gain"], ".5f"),
        "changed": " ".join(row.changes),
    }


def shown(value: float | None, form: str) -> str:
    """A number, or nothing where there is none."""
    return "" if value is None else format(value, form)


def print_table(rows: Sequence[Row]) -> None:
    """The rows for a terminal."""
    lines = [list(cells(rows[0])), *(list(cells(row).values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *numbers, last in lines:
        middle = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        print("  ".join(["", first.ljust(widths[0]), *middle, last]).rstrip())


def print_markdown(rows: Sequence[Row]) -> None:
    """The rows for a README."""
    names = list(cells(rows[0]))
    lines = [names, ["---"] * len(names)]
    for row in rows:
        *numbers, changed = cells(row).values()
        lines.append([*numbers, f"`{changed}`" if changed else ""])
    for line in lines:
        print(f"| {' | '.join(line)} |")
