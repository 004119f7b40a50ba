"""The model card of a packed run: what was trained on what, how well it scores, and how to load it."""

import csv
from pathlib import PurePath

from competition.plural import counted
from competition.run.contents import existing, fold_numbers
from competition.run.folder import RunFolder
from competition.run.records import CV, Environment, Epoch, read_history
from competition.settings.resolve import load_yaml, resolve, to_yaml
from competition.settings.schema import Settings

RULES = "https://www.kaggle.com/competitions/carvana-image-masking-challenge/rules"
DATA_LICENSE = (
    "The photos of the Carvana challenge belong to their owner, and may be used only as the rules of the competition "
    f"({RULES}) allow. Read them, and the license of other data and of pretrained weights, before you publish these "
    "networks or use them commercially."
)
CARD = """---
license: other
pipeline_tag: image-segmentation
tags: [image-segmentation, carvana, pytorch]
---

# {name}

Networks that cut a car out of a studio photo, one for each of {trained} of {folds}, trained with a pipeline for
Kaggle's Carvana Image Masking Challenge. They were made for photos like those of that challenge: one car, seen whole,
on a turntable, in a studio. On other photos (streets, several cars, other objects) they are not measured.

## Scores

{scores}

## Training

- Data: {images} of {cars} in the folder `{data}` (`folds.csv` lists them), divided by car.
- Network: `{network}`, input {width} x {height}, {start}.
- {versions}

## License of the data

There are no photos in this folder; `folds.csv` and the CV name them. {license}

## Use

`SHA256SUMS` has the checksum of each file (`sha256sum -c SHA256SUMS`). In a checkout of the pipeline:

```
make unpack FILE={name}.zip
make cutout RUN={name} PHOTOS=photo.jpg
make predict RUN={name} DATA=path/to/data
```

`fold<n>/best.safetensors` has the weights, and the settings of its network in its metadata:

```python
from pathlib import Path
from folds.checkpoint import load_weights
network, settings, provenance = load_weights(Path("runs/{name}/fold0/best.safetensors"))
```

`network(pixels)` takes uint8 RGB (N, 3, {height}, {width}) and returns logits (N, 1, {height}, {width}).

## Settings

```yaml
{settings}```
"""


def model_card(run: RunFolder) -> str:
    """The model card of a run, in Markdown."""
    settings = resolve(load_yaml(run.settings))
    with run.folds.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    environment = Environment.read(run.environment)
    network = settings.network
    return CARD.format(
        name=run.name,
        trained=len(existing(*(run.best(fold) for fold in fold_numbers(run)))),
        folds=counted(len({row["fold"] for row in rows}), "fold"),
        scores=_scores(run),
        images=counted(len(rows), "photo"),
        cars=counted(len({row["car"] for row in rows}), "car"),
        data=PurePath(environment.data).name,
        network=network.encoder if network.name == "timm_unet" else network.name,
        start=_start(settings),
        width=settings.input.width,
        height=settings.input.height,
        versions=_versions(environment),
        license=DATA_LICENSE,
        settings=to_yaml(settings),
    )


def _scores(run: RunFolder) -> str:
    cv = CV.read_if_exists(run.cv)
    if cv:
        return (
            f"Mean Dice **{cv.dice:.5f}**, mean IoU {cv.iou:.5f}: {counted(cv.images, 'photo')} of "
            f"{counted(cv.cars, 'car')}, each "
            f"predicted by the networks that did not see its car, at full size (threshold {cv.threshold:g}, "
            f"test-time augmentation: {', '.join(cv.tta)}).\n\n"
            + _table(["fold", "cars", "images", "Dice", "IoU"])
            + "".join(
                f"| {each.fold} | {each.cars} | {each.images} | {each.dice:.5f} | {each.iou:.5f} |\n"
                for each in cv.folds
            ).rstrip("\n")
        )
    lines = [_line(fold, read_history(run.history(fold))) for fold in fold_numbers(run)]
    head = _table(["fold", "epochs", "Dice", "IoU"])
    return f"Not cross-validated. Held-out photos in validation, at the size of the network:\n\n{head}" + "\n".join(
        lines
    )


def _table(columns: list[str]) -> str:
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"


def _line(fold: int, history: list[Epoch]) -> str:
    best = max(
        (epoch for epoch in history if epoch.dice is not None), key=lambda epoch: epoch.dice or 0, default=None
    )
    scores = f"{best.dice:.5f} | {best.iou:.5f}" if best else "not validated |"
    return f"| {fold} | {len(history)} | {scores} |"


def _start(settings: Settings) -> str:
    network = settings.network
    if network.init_from != "none":
        return f"started from the weights of run {network.init_from}"
    start = {
        "none": "trained from scratch",
        "hub": "started from pretrained weights of timm",
        "studio": "started from the studio weights",
    }
    return start.get(network.weights, f"started from the weights {network.weights}")


def _versions(environment: Environment) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in environment.packages.items() if number)
    return f"Made with {environment.device}, Python {environment.python}, {packages}."
