"""What a step of the check is: a generator of figures, which raises an error if something does not work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.material import settings_of
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.settings.resolve import Tree, parse_assignments
from competition.settings.schema import Settings
from folds.device import pick_device

UNTRAINED: Tree = {"network": {"weights": "none"}}  # nothing is downloaded
TINY = (
    "input.height=32",
    "input.width=64",
    "network.width=4",
    "network.depth=1",
    "train.batch_size=2",
    "train.workers=0",
)


class Figure(NamedTuple):
    """A row of the table."""

    name: str
    value: float | str
    unit: str = ""

    def __str__(self) -> str:
        """The row, indented below its step."""
        value = self.value if isinstance(self.value, str) else f"{self.value:,.4g}"
        return f"    {self.name:58} {value} {self.unit}".rstrip()


class Check(NamedTuple):
    """What the steps work with.

    Attributes:
        data: a data folder.
        folder: for the runs of this step.
        rehearsal: everything is tiny and computes on the CPU.
        assignments: settings of the trained run of step ``dice``.
    """

    data: DataFolder
    folder: Path
    rehearsal: bool = False
    assignments: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """The GPU; the CPU in a rehearsal."""
        return pick_device()

    @property
    def preset(self) -> str:
        """The preset whose network is measured."""
        return "demo" if self.rehearsal else "gpu"

    @property
    def trainings(self) -> dict[str, Settings]:
        """The trainings that are measured: both stages of preset ``gpu``, and ``fullres``."""
        if self.rehearsal:
            return {"demo": self.settings("demo", {"first_stage": {"epochs": 1}})}
        first, second = self.settings("gpu").stages
        return {"gpu, first stage": first, "gpu": second, "fullres": self.settings("fullres")}

    @property
    def tiny(self) -> tuple[str, ...]:
        """The settings of a rehearsal."""
        return TINY if self.rehearsal else ()

    def few(self, rehearsed: int, otherwise: int) -> int:
        """A number of repetitions or photos."""
        return rehearsed if self.rehearsal else otherwise

    def settings(self, preset: str, *over: Tree) -> Settings:
        """The settings of a preset with an untrained network, with changes."""
        return settings_of(preset, UNTRAINED, parse_assignments(self.tiny), *over)


Step = Callable[[Check], Iterator[Figure]]


def require(holds: bool, problem: str) -> None:
    """Raise a Failure with a problem unless something holds."""
    if not holds:
        raise Failure(problem)
