"""The ablation: train variants of a preset for the same time, and score them on cars of a separate test fold.

The last fold of the split is the test fold. Every training leaves its cars out, and none is validated on them.
The networks of a variant are those of folds 0, 1, ... after the last epoch, so nothing is selected on the test fold.
Each variant is a run; the same command resumes an interrupted ablation.
"""

import json
import statistics
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.comparison import Row, paired, print_markdown, print_table
from benchmarks.loader import trained_per_second
from benchmarks.measure import report
from benchmarks.variants import VARIANTS, Changes
from competition import files
from competition.command import Failure, one_line, parser, run_command
from competition.data_folder import DataFolder
from competition.files import read_json, sha256
from competition.mask_area import mask_areas
from competition.photo import Photo
from competition.run.folder import DEFAULT_DATA, RunFolder, run_at
from competition.run.open import SOURCES, open_run
from competition.run.records import read_history
from competition.settings.resolve import load_preset, merge, parse_assignments, resolve
from competition.settings.schema import TTA, Inference, Settings, flat
from folds.begin import ensure_split, require_possible
from folds.checkpoint import load_record
from folds.device import pick_device
from folds.history import best_of_finished
from folds.networks.whole import STUDIO, studio_weights
from folds.split import split_by_car
from folds.start import differences
from folds.train import make_trainer, train_fold
from inference.engine.ensemble import load_ensembles
from inference.evaluate import score_photos
from inference.shards import key_of

PRESET = "preset"  # name of the row and of the run
STEPS = 10  # measured training steps
HALF = 0.5
NO_TTA: list[TTA] = ["identity"]
ONE_STAGE = "first_stage.epochs=0"  # all of the time is the variant's own


class Pace(NamedTuple):
    """The images of an epoch, and the images per second of the training."""

    images: int
    images_per_second: float

    def epochs(self, minutes: float) -> int:
        """The number of epochs that is closest to a duration, at least one."""
        return max(1, round(minutes * 60 * self.images_per_second / self.images))


@dataclass(frozen=True)
class Protocol:
    """The protocol that all variants share.

    Attributes:
        preset: its name or file.
        over: settings of all variants over the preset.
        weights: files of pretrained weights by encoder.
        data: the data folder.
        by_fold: the split; the last fold is the test fold.
        runs: the folder of the variants' runs.
        inference: TTA and other settings of the scoring.
        minutes: duration of each training.
        epochs: of each training, instead of minutes.
    """

    preset: str
    over: Sequence[str]
    weights: Mapping[str, str]
    data: DataFolder
    by_fold: Mapping[int, list[Photo]]
    runs: Path
    inference: Inference
    minutes: float
    epochs: int | None

    @property
    def unseen(self) -> list[Photo]:
        """The photos of the test fold."""
        return self.by_fold[max(self.by_fold)]

    def run(self, variant: str) -> RunFolder:
        """The folder that a variant is trained in."""
        return RunFolder(self.runs / variant)

    def assignments(self, changes: Changes) -> list[str]:
        """The settings of a variant over the preset, except the epochs."""
        changed = [*self.over, *changes]
        changed += weights_for(changes, resolved(self.preset, changed), self.weights)
        left_out = resolved(self.preset, changed).data.leave_out
        cars = sorted({photo.car for photo in self.unseen})
        names = json.dumps([*left_out, *cars])  # in quotes, because a name may be all digits
        return [*changed, f"data.leave_out={names}"]


@dataclass(frozen=True)
class Trained:
    """A trained network of a variant, and its Dice on the test fold with and without TTA."""

    settings: Settings
    fold: int
    images_per_second: float
    dice: float
    dice_without_tta: float


def resolved(preset: str, assignments: Sequence[str]) -> Settings:
    """The settings of a preset with changes."""
    return resolve(merge(load_preset(preset), parse_assignments(assignments)))


def weights_for(changes: Changes, settings: Settings, files: Mapping[str, str]) -> list[str]:
    """The setting of starting weights that fits the network of a variant: the encoder's if the studio's do not."""
    named = {change.partition("=")[0] for change in changes}
    encoder, weights = settings.network.encoder, settings.network.weights
    if weights == STUDIO:
        if not differences(settings.network, load_record(studio_weights())[0].network):
            return []
        weights = "hub"
    if encoder in files and (weights == "hub" or "network.weights" not in named):
        return [f"network.weights={files[encoder]}"]
    # A preset from scratch is compared with another encoder from scratch.
    if "network.encoder" in named and weights != "none":
        weights = "hub"
    return [f"network.weights={weights}"] if weights != settings.network.weights else []


def files_of(assignments: Sequence[str], preset: Settings) -> dict[str, str]:
    """``["mobilenetv2_100=FILE"]`` as a dict."""
    changed = [change.partition("=") for changes in VARIANTS.values() for change in changes]
    known = {preset.network.encoder} | {value for name, _, value in changed if name == "network.encoder"}
    files = {}
    for assignment in assignments:
        encoder, equals, file = assignment.partition("=")
        if not equals or encoder not in known:
            raise Failure(f"--weights takes ENCODER=FILE, of {' or '.join(sorted(known))}, not {assignment!r}")
        files[encoder] = file
    return files


def protocol_of(options: Namespace) -> Protocol:
    """Check the options of the command line and the data, and collect them in a protocol."""
    over = [ONE_STAGE, *options.set]
    settings = resolved(options.preset, over)
    if options.minutes <= 0:
        raise Failure(f"--minutes={options.minutes:g} is not above 0; the default is MINUTES=15")
    if settings.train.batch_size == "auto":
        raise Failure("train.batch_size=auto may choose a different number for each variant; use a number")
    if settings.first_stage.epochs:
        raise Failure(f"the time of a first stage is not that of its variant; use {ONE_STAGE}")
    learned = [name for name in SOURCES if flat(settings)[name] != "none"]
    if learned:
        raise Failure(
            f"{learned[0]} names a run whose folds have learned from the cars of the test fold; remove this setting"
        )
    most = settings.split.folds - 1
    if not 1 <= options.repeats <= most or options.ensemble > most:
        raise Failure(
            f"--repeats={options.repeats} --ensemble={options.ensemble}: one of {settings.split.folds} folds is "
            f"the test fold, and {most} have a network; use 1 to {most}"
        )
    data = DataFolder(options.data, settings.data)
    data.require_masks(data.train)
    by_fold: dict[int, list[Photo]] = {fold: [] for fold in range(settings.split.folds)}
    fold_of = split_by_car(data.train, mask_areas(data), settings.split.folds, settings.seed)
    for photo, fold in zip(data.train, fold_of, strict=True):
        by_fold[fold].append(photo)
    return Protocol(
        preset=options.preset,
        over=over,
        weights=files_of(options.weights, settings),
        data=data,
        by_fold=by_fold,
        runs=run_at(options.run).root,
        inference=settings.inference,
        minutes=options.minutes,
        epochs=options.epochs,
    )


def pace_of(variant: str, settings: Settings, protocol: Protocol) -> Pace:
    """The pace of a variant, measured once; variants whose steps take equally long share the preset's."""
    preset = resolved(protocol.preset, protocol.assignments([]))
    if work(settings) == work(preset):
        variant, settings = PRESET, preset
    file = protocol.run(variant).root / "pace.json"
    key = key_of(work=work(settings), data=str(protocol.data.root.resolve()))
    kept = read_json(file) if file.is_file() else {}
    if kept.get("key") != key:
        kept = {"key": key, "pace": measured_pace(settings, protocol)._asdict()}
        files.write_json(file, kept)
    return Pace(**kept["pace"])


def work(settings: Settings) -> dict[str, Any]:
    """The settings that determine the duration of a step."""
    names = ("input.", "network.", "augment.crop", "train.batch_size")
    return {name: value for name, value in flat(settings).items() if name.startswith(names)} | {"network.weights": ""}


def measured_pace(settings: Settings, protocol: Protocol) -> Pace:
    """Measure the pace with a temporary trainer."""
    quick = settings.train.model_copy(update={"cache": False, "workers": 0})
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            RunFolder(Path(folder)),
            settings.model_copy(update={"train": quick}),
            protocol.data,
            protocol.by_fold,
            fold=0,
        )
        return Pace(trainer.batches.samples, trained_per_second(trainer, STEPS))


def begin(variant: str, changes: Changes, protocol: Protocol) -> tuple[RunFolder, Settings]:
    """The run and the settings of a variant; the run is created if it does not exist."""
    assignments = protocol.assignments(changes)
    epochs = protocol.epochs
    if epochs is None:
        epochs = pace_of(variant, resolved(protocol.preset, assignments), protocol).epochs(protocol.minutes)
    arguments = Namespace(
        run=f"{protocol.runs}/{variant}",
        data=protocol.data.root,
        preset=protocol.preset,
        settings=None,
        set=[*assignments, f"train.epochs={epochs}", f"train.validate_every={epochs}"],
    )
    run, settings, _ = open_run(arguments, protocol.preset)
    if not run.settings.is_file():
        require_possible(run, settings, protocol.data, fold=None)
    if ensure_split(run, settings, protocol.data) != protocol.by_fold:
        raise Failure(f"{run.folds} is not the split of these data and settings; use a new RUN")
    return run, settings


def train_variant(variant: str, changes: Changes, folds: Sequence[int], protocol: Protocol) -> list[Trained]:
    """Train and score the networks of a variant that are not finished."""
    run, settings = begin(variant, changes, protocol)
    networks = []
    for fold in folds:
        if best_of_finished(run, settings, fold) is None:
            print(f"{variant}:", flush=True)
            train_fold(run, settings, protocol.data, protocol.by_fold, fold)
        scores = scores_of([run.best(fold)], run.fold(fold) / "unseen.json", protocol)
        network = Trained(settings, fold, trained_pace(run, fold), scores["tta"], scores["no TTA"])
        print(
            f"{variant}, fold {fold}: Dice {network.dice:.5f}, without TTA {network.dice_without_tta:.5f}", flush=True
        )
        networks.append(network)
    return networks


def trained_pace(run: RunFolder, fold: int) -> float:
    """Images per second of the training of a fold, the median over epochs."""
    return statistics.median(epoch.images_per_second for epoch in read_history(run.history(fold)))


def scores_of(models: Sequence[Path], file: Path, protocol: Protocol) -> dict[str, float]:
    """The Dice of an ensemble on the test fold, with and without TTA; cached in a file."""
    chosen = protocol.inference
    key = key_of(models=[sha256(model) for model in models], tta=chosen.tta, precision=chosen.precision)
    kept = read_json(file) if file.is_file() else {}
    if kept.get("key") != key:
        kept = {"key": key, "dice": {}}
        for name, tta in {"tta": chosen.tta, "no TTA": NO_TTA}.items():
            ensembles = load_ensembles(models, chosen.model_copy(update={"tta": tta}), device=pick_device())
            kept["dice"][name] = score_photos(protocol.unseen, ensembles, protocol.data, chosen, HALF).dice
        files.write_json(file, kept)
    dice: dict[str, float] = kept["dice"]
    return dice


def row_of(
    variant: str, changes: Changes, networks: Sequence[Trained], *, dice: Sequence[float], gains: Sequence[float]
) -> Row:
    """The row of one variant."""
    settings = networks[0].settings
    pace = statistics.fmean(network.images_per_second for network in networks)
    size = f"{settings.input.width} x {settings.input.height}"
    return Row(variant, changes, size, settings.train.epochs, pace, dice, gains)


def rows_of_preset(networks: Sequence[Trained]) -> list[Row]:
    """The row of the preset, and the row without TTA."""
    dice, without_tta = dice_of(networks), [network.dice_without_tta for network in networks]
    return [
        row_of(PRESET, [], networks, dice=dice, gains=[]),
        row_of("no TTA", ["inference.tta=[identity]"], networks, dice=without_tta, gains=paired(without_tta, dice)),
    ]


def row_of_ensemble(preset: Sequence[Trained], count: int, protocol: Protocol) -> Row:
    """The networks of the preset as an ensemble; the gain is over the mean of the networks."""
    networks = [*preset, *train_variant(PRESET, [], range(len(preset), count), protocol)]
    run = protocol.run(PRESET)
    models = [run.best(network.fold) for network in networks]
    together = scores_of(models, run.root / f"unseen{count}.json", protocol)["tta"]
    gain = together - statistics.fmean(dice_of(networks))
    return row_of(f"ensemble of {count}", [], networks, dice=[together], gains=[gain])


def row_of_variant(variant: str, preset: Sequence[Trained], protocol: Protocol) -> Row:
    """The row of a variant, compared with the preset on the same folds."""
    changes = VARIANTS[variant]
    networks = train_variant(variant, changes, [network.fold for network in preset], protocol)
    dice = dice_of(networks)
    return row_of(variant, changes, networks, dice=dice, gains=paired(dice, dice_of(preset)))


def dice_of(networks: Sequence[Trained]) -> list[float]:
    """The Dice of each network on the test fold, with TTA."""
    return [network.dice for network in networks]


def measure(
    variants: Sequence[str], repeats: int, ensemble: int, protocol: Protocol
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all finished variants, the preset first, and the errors of the others."""
    preset = train_variant(PRESET, [], range(repeats), protocol)
    rows, not_run = rows_of_preset(preset), dict[str, str]()
    ways: dict[str, Callable[[], Row]] = {}
    if (together := max(repeats, ensemble)) > 1:
        ways["ensemble"] = partial(row_of_ensemble, preset, together, protocol)
    ways |= {name: partial(row_of_variant, name, preset, protocol) for name in variants}
    for name, way in ways.items():
        try:
            rows.append(way())
        except Failure as problem:
            not_run[name] = one_line(problem)
            print(f"{name} is not run: {not_run[name]}", flush=True)
    return rows, not_run


def add_arguments(arguments: ArgumentParser) -> None:
    """Add the options of the command line."""
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--preset", default="cpu", help="preset; the variants are changes to cpu")
    arguments.add_argument(
        "--set", action="extend", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all variants"
    )
    arguments.add_argument(
        "--weights",
        action="extend",
        nargs="*",
        default=[],
        metavar="ENCODER=FILE",
        help="pretrained weights; by default the hub's",
    )
    arguments.add_argument(
        "--variants",
        nargs="*",
        default=list(VARIANTS),
        choices=list(VARIANTS),
        metavar="NAME",
        help="variants; the preset is always included",
    )
    arguments.add_argument("--run", default="ablation", metavar="NAME", help="folder of its runs, in runs/")
    arguments.add_argument("--repeats", type=int, default=3, help="networks of each variant, one for each fold")
    arguments.add_argument(
        "--ensemble", type=int, default=0, help="networks in the ensemble row, if more than repeats"
    )
    arguments.add_argument("--minutes", type=float, default=15, help="duration of each training, rounded to epochs")
    arguments.add_argument("--epochs", type=int, help="epochs of each training, instead of minutes")
    arguments.add_argument("--markdown", action="store_true", help="print the table in Markdown as well")


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score all variants, print and write the table."""
    arguments = parser("Train variants of a preset for the same time and score them on unseen cars.")
    add_arguments(arguments)
    options = arguments.parse_args(argv)
    protocol = protocol_of(options)
    rows, not_run = measure(options.variants, options.repeats, options.ensemble, protocol)
    cars = len({photo.car for photo in protocol.unseen})
    tta = ", ".join(protocol.inference.tta)
    print(f"\npreset {options.preset} on {cars} unseen cars, {len(protocol.unseen)} images; TTA {tta}")
    print_table(rows)
    for name, reason in not_run.items():
        print(f"  {name} is not run: {reason}")
    if options.markdown:
        print_markdown(rows)
    result = {
        "data": str(options.data),
        "preset": options.preset,
        "set": options.set,
        "minutes": None if options.epochs else options.minutes,
        "unseen_cars": cars,
        "unseen_images": len(protocol.unseen),
        "rows": [asdict(row) | row.figures for row in rows],
        "not_run": not_run,
    }
    report("ablation", result, [])


if __name__ == "__main__":
    run_command(main)
