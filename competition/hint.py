"""The commands that messages and "next: ..." lines name: they run when they are pasted into a shell.

A hint has the form in which the command that prints it was started: ``make``, with the variables that say where
Python is, or ``python -m``. It repeats those options of that command that the next one needs too, such as ``DATA``.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from competition.run.folder import run_at

# How make was called, such as `make SYSTEM=1`; the Makefile sets it.
MAKE = "CARVANA_MAKE"
# The modules of the targets that hints name.
MODULES = {
    "data": "competition.kaggle.download",
    "synthetic": "competition.studio",
    "adopt": "competition.adopt",
    "check": "competition.check",
    "folds": "folds.begin",
    "train": "folds.train",
    "cv": "inference.cv",
    "score": "inference.score",
    "predict": "inference.predict",
    "pseudo": "inference.pseudo",
    "validate": "submissions.validate",
    "submit": "submissions.submit",
    "submissions": "submissions.ledger",
    "masks": "submissions.masks",
    "cutout": "inference.cutout",
    "export": "inference.export",
    "report": "inference.report",
    "unpack": "competition.run.unpack",
}
TRAINED = {"folds", "train", "cv", "score", "predict", "pseudo"}  # they take settings, and compute on DEVICE
WITH_DATA = TRAINED | {"validate", "masks", "submit", "report"}
SWITCHES = {"HQ", "FORCE", "DRY_RUN", "STATE", "ALL"}
Value = str | Sequence[str]


def hint(target: str, **variables: object) -> str:
    """The command line of a target, quoted for the shell.

    Args:
        target: of the Makefile.
        variables: of the Makefile. A list stands for several values, None for a variable that is not set. RUN is a
            run as a command line names it.
    """
    named = {
        name: value if isinstance(value, list) else str(value)
        for name, value in variables.items()
        if value is not None and value != []
    }
    repeated = {name: value for name, value in _repeated(target, named).items() if name not in variables}
    return _command(target, {**named, **repeated})


def takes_settings(target: str) -> bool:
    """Whether a target takes PRESET, SETTINGS and SET."""
    return target in TRAINED


def _command(target: str, variables: Mapping[str, Value]) -> str:
    made = os.environ.get(MAKE)
    start = sys.orig_argv
    device = os.environ.get("DEVICE") if target in TRAINED else None
    environment = [f"DEVICE={shlex.quote(device)}"] if device else []
    if made is None and "-m" in start and _is_ours(start[start.index("-m") + 1 :]):
        if target == "train" and "FOLD" not in variables:
            variables = {"FOLD": "0", **variables}  # as the Makefile does
        module = MODULES[target] + "_onnx" * ("MODEL" in variables)
        return " ".join([*environment, shlex.quote(start[0]), "-m", module, *_options(variables)])
    assignments = [
        f"{name}={shlex.quote(value if isinstance(value, str) else ' '.join(value))}"
        for name, value in variables.items()
    ]
    return " ".join([*map(shlex.quote, shlex.split(made or "make")), target, *assignments, *environment])


def _is_ours(words: Sequence[str]) -> bool:
    return bool(words) and words[0].partition(".")[0] in {name.partition(".")[0] for name in MODULES.values()}


def _options(variables: Mapping[str, Value]) -> list[str]:
    """Variables of make as options of a module."""
    options = []
    for name, value in variables.items():
        option = f"--{name.lower().replace('_', '-')}"
        if name == "PHOTOS":
            options.append(shlex.quote(str(value)))
        elif name in SWITCHES:
            options.append(option)
        elif isinstance(value, str):
            options.append(f"{option}={shlex.quote(value)}")
        else:
            options += [option, *map(shlex.quote, value)]
    return options


def _repeated(target: str, variables: Mapping[str, Value]) -> dict[str, Value]:
    """The options of the command that runs which the hinted one needs too: the data, and settings of the same run."""
    given = _given(sys.argv[1:])
    runs = given.get("RUNS") or given.get("RUN") or ["default"]
    if target not in WITH_DATA:
        return {}
    run = variables.get("RUN")
    # Several runs make a combined run, whose name is none of theirs.
    same = run is None or (run_at(str(run)) in map(run_at, runs)) == (len(runs) == 1)
    names = ("DATA", "PRESET", "SETTINGS", "SET") if same and target in TRAINED else ("DATA",)
    return {name: given[name] if name == "SET" else given[name][-1] for name in names if name in given}


def _given(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The options of a command line that name runs, data and settings, as variables of make."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in arguments:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            values = found.setdefault(option[2:].upper(), [])
            values += [value] if value else []
        else:
            values.append(word)
    names = ("RUN", "RUNS", "DATA", "PRESET", "SETTINGS", "SET")
    return {name: found[name] for name in names if found.get(name)}
