"""``make studio-weights``: train the shipped weights on generated cars, as their recipe says.

No photo is stored: each is drawn when it is needed, and no two are alike. The training resumes exactly. With real
cars in ``--data``, the epoch is chosen by the Dice of the first half of them, and the score is that of the second
half. The network never learns from them. Without ``--data``, the cars that choose and score are generated.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from competition import metrics
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.deadline import Deadline, add_deadline_argument
from competition.files import sha256, write_text
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.records import read_history
from competition.settings.resolve import Tree, merge, resolve
from competition.settings.schema import Settings
from competition.settings.strict_yaml import parse
from competition.studio.data_set import Order, make
from competition.studio.variety import photo_of
from folds.checkpoint import load_weights
from folds.device import keep_freed_memory, pick_device
from folds.frame import Frame
from folds.networks.build import make_network
from folds.samples import Key, Pair, Samples
from folds.studio_weights import write_studio_weights
from folds.trainer import Trainer
from folds.validation import Validation
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Thresholded, level_of
from inference.engine.runtime import precision_of, resolve_engine
from inference.engine.stream import map_masks

SHIPPED = Path("folds/networks/studio")
THRESHOLD = 0.5
FINER = 5 / 3  # a photo is drawn at this multiple of the network's size, so that outlines are smooth


class Stage(NamedTuple):
    """One training of the recipe: the photos of an epoch, all settings, and `border` of `photo_of`."""

    photos: int
    settings: Settings
    border: float


@dataclass(frozen=True)
class Recipe:
    """The file that says how the weights are made; `encoder` describes the first weights of the encoder."""

    path: Path
    seed: int
    encoder: str
    stages: list[Stage]

    @classmethod
    def read(cls, path: Path, encoder: str | None = None) -> "Recipe":
        """Read a recipe; `encoder` is a file with the encoder's first weights, instead of a download."""
        tree: Tree = parse(path.read_text(encoding="utf-8"))
        changes: Tree = {"seed": tree["seed"]}
        if encoder:
            changes["network"] = {"weights": encoder}
        stages = [
            Stage(stage["photos"], resolve(merge(tree["settings"], stage["settings"], changes)), stage["border"])
            for stage in tree["stages"]
        ]
        return cls(path, tree["seed"], tree["encoder"], stages)


class Generated(Samples):
    """Photos of generated cars; each photo of each epoch of each stage shows another one."""

    def __init__(self, number: int, stage: Stage, data: DataFolder) -> None:
        settings = stage.settings
        super().__init__([], data, Frame.of(settings.input), settings.augment, seed=settings.seed)
        self.number, self.stage = number, stage

    def __len__(self) -> int:
        """The number of photos of an epoch."""
        return self.stage.photos

    def pair(self, key: Key) -> Pair:
        """Draw a photo and its target in the network's frame."""
        width, height = self.frame.width, self.frame.height
        number = key.epoch * len(self) + key.photo
        size = round(FINER * width), round(FINER * height)
        photo, mask = photo_of((self.seed, self.number, number), *size, self.stage.border)
        return Pair(
            np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)), self.frame.target(mask)
        )


class Judges(NamedTuple):
    """The photos that choose the epoch, and the photos of other cars that are scored at the end."""

    choosing: list[Photo]
    scored: list[Photo]


def judges_of(data: DataFolder) -> Judges:
    """All views of the second half of the cars score; one view of each car of the first half chooses."""
    by_car: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(data.train, key=lambda photo: photo.img):
        by_car[photo.car].append(photo)
    cars = [by_car[name] for name in sorted(by_car)]
    half = len(cars) // 2
    choosing = [photos[number % len(photos)] for number, photos in enumerate(cars[:half])]
    return Judges(choosing, [photo for photos in cars[half:] for photo in photos])


def validation_of(photos: Sequence[Photo], data: DataFolder, settings: Settings) -> Validation:
    """Scores a network on photos, at full size."""
    return Validation(photos, data, Frame.of(settings.input), batch_size=4, workers=settings.train.workers)


def train(recipe: Recipe, run: RunFolder, data: DataFolder, deadline: Deadline) -> None:
    """Train all stages that are not finished; stage n is fold n of the run."""
    judges = judges_of(data)
    for number, stage in enumerate(recipe.stages):
        settings = stage.settings
        torch.manual_seed(settings.seed + number)
        trainer = Trainer(
            first_network(run, settings, number),
            Generated(number, stage, data),
            validation_of(judges.choosing, data, settings),
            settings=settings,
            run=run,
            fold=number,
            device=pick_device(),
        )
        trainer.fit(deadline)


def first_network(run: RunFolder, settings: Settings, stage: int) -> nn.Module:
    """The network of a stage: that of the stage before it or, in the first one, with a pretrained encoder."""
    if stage == 0:
        return make_network(settings, pretrained=not run.last(0).is_file())
    network = make_network(settings, pretrained=False)
    network.load_state_dict(load_weights(run.best(stage - 1))[0].state_dict())
    return network


def learning(recipe: Recipe, run: RunFolder) -> str:
    """The log of the training as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["stage", "epoch", "width", "height", "photos_seen", "lr", "loss", "dice", "seconds"])
    seen = 0
    for number, stage in enumerate(recipe.stages):
        size = stage.settings.input.width, stage.settings.input.height
        for epoch in read_history(run.history(number)):
            seen += stage.photos
            dice = "" if epoch.dice is None else f"{epoch.dice:.5f}"
            figures = f"{epoch.lr:.2e}", f"{epoch.loss:.5f}", dice, epoch.seconds
            rows.writerow([number + 1, epoch.epoch, *size, seen, *figures])
    return text.getvalue()


def publish(recipe: Recipe, run: RunFolder, data: DataFolder, path: Path) -> None:
    """Score the best weights of the last stage and write them as the shipped ones."""
    network, settings, provenance = load_weights(run.best(len(recipe.stages) - 1))
    scored, how, device = judges_of(data).scored, settings.inference, pick_device()
    precision, engine = precision_of(how, device), resolve_engine(how, device)
    ensemble = Ensemble(
        [network], Frame.of(settings.input), how.tta, device=device, precision=precision, engine=engine
    )

    def dice(photo: Photo, mask: Thresholded) -> float:
        return metrics.mean([metrics.counts_of_spans(mask.spans, data.truth_spans(photo))]).dice

    scores = list(map_masks(dice, scored, [ensemble], how, level=level_of(THRESHOLD)))
    seen = sum(stage.photos * stage.settings.train.epochs for stage in recipe.stages)
    judged = f"{len(scores)} photos of {len({photo.car for photo in scored})} cars of {data.root.name}"
    write_studio_weights(
        network.state_dict(),
        settings,
        provenance,
        trained_on=f"{seen:,} photos of as many generated cars; the encoder began as {recipe.encoder}",
        dice=round(fmean(scores), 5),
        scored_on=judged,
        recipe=recipe.path,
        path=path,
    )
    print(f"{path}, on {judged}, which were not in the training set:")
    print(f"Dice {fmean(scores):.5f}, median {median(scores):.5f}, worst {min(scores):.5f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score and write the weights."""
    arguments = parser("Train the shipped weights on generated cars, as their recipe says. Resumes.")
    arguments.add_argument("--data", type=Path, help="real cars that choose the epoch and score the weights")
    arguments.add_argument("--run", type=Path, default=Path("runs/studio-weights"), help="folder of the training")
    arguments.add_argument("--recipe", type=Path, default=SHIPPED / "recipe.yaml", help="recipe to follow")
    arguments.add_argument("--weights", help="file with the encoder's ImageNet weights, instead of a download")
    arguments.add_argument("--out", type=Path, default=SHIPPED, help="folder for the weights and the log")
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    recipe, run = Recipe.read(options.recipe, options.weights), RunFolder(options.run)
    require_same(recipe, run)
    if options.data is None:
        make(run.root / "data", Order(cars=8, test_cars=0, seed=recipe.seed), workers=1)
    data = DataFolder(options.data or run.root / "data")
    keep_freed_memory()
    train(recipe, run, data, deadline)
    write_text(options.out / "learning.csv", learning(recipe, run))
    publish(recipe, run, data, options.out / "weights.safetensors")


def require_same(recipe: Recipe, run: RunFolder) -> None:
    """Raise a Failure if the run was begun with another recipe; else store which one it follows."""
    stored, hash_of = run.root / "recipe.sha256", sha256(recipe.path)
    if stored.is_file() and stored.read_text(encoding="utf-8") != hash_of:
        raise Failure(f"{run.root} was begun with another recipe than {recipe.path}; name another folder: --run ...")
    run.root.mkdir(parents=True, exist_ok=True)
    write_text(stored, hash_of)


if __name__ == "__main__":
    run_command(main)
