"""The variants that ``benchmarks.ablation`` trains. Each changes one choice of preset ``cpu``, in one stage.

Another network starts from its encoder's ImageNet weights, because the studio weights do not fit it: compare it with
``imagenet``. All variants are trained for the same time; to compare numbers of epochs, give other ``MINUTES``.
"""

from collections.abc import Mapping, Sequence

Changes = Sequence[str]

# Question -> variant -> changes to the preset.
QUESTIONS: Mapping[str, Mapping[str, Changes]] = {
    "loss": {
        "bce": ["loss.dice=0"],
        "dice": ["loss.bce=0", "loss.boundary=1"],
        "no-boundary": ["loss.boundary=1"],
    },
    "start": {
        "imagenet": ["network.weights=hub"],
        "scratch": ["network.weights=none", "network.freeze=0"],
        "unfrozen": ["network.freeze=0"],
    },
    "targets": {
        "hard": ["loss.targets=hard"],
    },
    "encoder": {
        "unet": [
            *("network.name=unet", "network.width=32", "network.depth=4", "network.stem=4"),
            *("network.weights=none", "network.decoder=[128,64,32,24,16]", "network.freeze=0"),
        ],
        "lite0": ["network.encoder=tf_efficientnet_lite0"],
    },
    "decoder": {
        "full-size": ["network.stem=1", "network.decoder=[128,64,32,24,16]"],
        "enlarged": ["network.stem=1", "network.decoder=[128,64,32,24]"],
        "wide": ["network.decoder=[256,128,64,32]"],
        "group-norm": ["network.norm=group"],
    },
    "size": {
        "smaller": ["input.height=384", "input.width=576", "loss.boundary_width=13"],
        "larger": ["input.height=768", "input.width=1152", "loss.boundary_width=25"],
        "cropped": ["augment.crop=[384,576]", "train.batch_size=4"],
    },
    "augmentation": {
        "strong": ["augment.affine=0.5", "augment.scale=0.1", "augment.colour=0.5", "augment.grey=0.05"],
        "plain": ["augment.flip=0", "augment.affine=0", "augment.colour=0"],
        "flip-only": ["augment.affine=0", "augment.colour=0"],
        "no-colours": ["augment.colour=0"],
        "no-flip": ["augment.flip=0"],
        "no-affine": ["augment.affine=0"],
    },
    "trainer": {
        "no-ema": ["train.ema=0"],
        "batch-4": ["train.batch_size=4"],
        "lr-5e-4": ["train.lr=5e-4"],
        "lr-2e-3": ["train.lr=2e-3"],
        "no-clip": ["train.clip=0"],
    },
}
VARIANTS: Mapping[str, Changes] = {
    name: changes for variants in QUESTIONS.values() for name, changes in variants.items()
}
