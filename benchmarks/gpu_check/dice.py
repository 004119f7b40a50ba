"""Step ``dice``, by name only: the Dice of fold 0 after five minutes of preset ``gpu`` on crops."""

from collections.abc import Iterator

from benchmarks.gpu_check.speed import trainer
from benchmarks.gpu_check.step import Check, Figure
from benchmarks.loader import together_per_second
from competition.run.folder import RunFolder
from competition.run.records import read_history
from competition.settings.resolve import parse_assignments
from competition.settings.schema import TTA
from folds.train import main as train_command
from inference.evaluate import evaluate

SECONDS = 320  # of training; validations come on top
VALIDATIONS = 4
# The first stage of preset gpu alone: there is no time for a second one.
CROPS = ("first_stage.epochs=0", "augment.crop=[1024,1024]", "train.batch_size=8", "train.lr=5e-4", "train.epochs=60")


def dice(check: Check) -> Iterator[Figure]:
    """Train fold 0 for as many epochs as fit the time, and score it with and without TTA."""
    preset = check.preset
    chosen = [*(check.tiny or CROPS), *check.assignments]
    settings = check.settings(preset, parse_assignments(chosen))
    made = trainer(check, settings)
    pace = together_per_second(made, check.few(1, 20))
    del made  # ends its workers
    yield Figure(f"{preset}: training", pace, "images/s")
    images = len(check.data.train) * (settings.split.folds - 1) / settings.split.folds
    epochs = max(2, min(settings.train.epochs, round(check.few(1, SECONDS) * pace / images)))
    run = RunFolder(check.folder / "dice")
    arguments = ["--fold", "0", "--run", str(run.root), "--data", str(check.data.root), "--preset", preset]
    given = ["network.weights=none", *chosen, f"train.epochs={epochs}"]
    train_command([*arguments, "--set", *given, f"train.validate_every={-(-epochs // VALIDATIONS)}"])
    history = read_history(run.history(0))
    yield Figure("epochs", len(history))
    yield Figure("seconds of training", sum(epoch.seconds for epoch in history), "s")
    choices: dict[str, list[TTA]] = {"one view": ["identity"], "hflip": ["identity", "hflip"]}
    for name, tta in choices.items():
        yield Figure(f"Dice of fold 0, {name}", evaluate(run.best(0), None, tta, 0.5).dice)
