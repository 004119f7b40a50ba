"""Step ``dice``, which runs only if it is named: train fold 0 with preset ``gpu``; its Dice with and without TTA."""

from collections.abc import Iterator

from benchmarks.gpu_check.step import Check, Figure
from competition.run.folder import RunFolder
from competition.run.records import read_history
from competition.settings.schema import TTA
from folds.train import main as train_command
from inference.evaluate import evaluate


def dice(check: Check) -> Iterator[Figure]:
    """The Dice of fold 0, and how long its training takes without the validations."""
    run = RunFolder(check.folder / "dice")
    chosen = [*check.tiny, "train.epochs=1"] if check.rehearsal else []
    chosen += check.assignments
    arguments = ["--fold", "0", "--run", str(run.root), "--data", str(check.data.root), "--preset", check.preset]
    train_command([*arguments, *(["--set", *chosen] if chosen else [])])
    stages = [stage for stage in (run.first_stage, run) if stage.history(0).is_file()]
    seconds = [epoch.seconds for stage in stages for epoch in read_history(stage.history(0))]
    yield Figure("epochs of all stages", len(seconds))
    yield Figure("training", sum(seconds), "s")
    choices: dict[str, list[TTA]] = {"one view": ["identity"], "hflip": ["identity", "hflip"]}
    for name, tta in choices.items():
        yield Figure(f"Dice of fold 0, {name}", evaluate(run.best(0), None, tta, 0.5).dice)
