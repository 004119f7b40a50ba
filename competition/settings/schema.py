"""The schema of the settings: every setting of a run, its default, its bounds and what it means."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
BatchSize = Literal["auto"] | Positive
Weight = Annotated[float, Field(ge=0)]
TTA = Literal["identity", "hflip", "vflip", "rot180"]


class Section(BaseModel):
    """A group of settings; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Python counts True as 1; a person who writes `workers: yes` has not said how many."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("true_is_no_number", "true and false are allowed for switches only")
        return value


class Data(Section):
    """Which photos are read."""

    hq: bool = Field(False, description="read train_hq and test_hq where both kinds exist")
    pseudo: str = Field(
        "none", description="run of the same split whose pseudo-labels of the test set each fold learns from too"
    )
    leave_out: list[str] = Field(
        [], description="img or car names that no fold learns from, such as wrong masks; they are scored all the same"
    )


class Split(Section):
    """How the training cars are divided."""

    folds: int = Field(5, ge=2, le=100, description="number of folds")


class Input(Section):
    """What the network sees of a photo."""

    height: int = Field(256, ge=32, le=4096, multiple_of=32, description="pixels")
    width: int = Field(384, ge=32, le=4096, multiple_of=32, description="pixels")
    fit: Literal["resize", "pad"] = Field(
        "resize", description="resize: the whole photo, resized; pad: its own pixels, padded to the size"
    )


class Augment(Section):
    """What is done to a training sample at random."""

    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    affine: Fraction = Field(0.5, description="probability of a shift, scale and rotation")
    shift: float = Field(0.05, ge=0, le=0.5, description="largest shift, as a part of the side")
    scale: float = Field(0.1, ge=0, le=0.9, description="largest relative change of scale")
    rotate: float = Field(3.0, ge=0, le=180, description="largest rotation, degrees")
    colour: Fraction = Field(0.5, description="probability of a change of brightness, contrast and saturation")
    brightness: float = Field(0.15, ge=0, le=1, description="largest relative change")
    contrast: float = Field(0.15, ge=0, le=1, description="largest relative change")
    saturation: float = Field(0.2, ge=0, le=1, description="largest relative change")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest change, as a part of the colour circle; with colour")
    grey: Fraction = Field(0.05, description="probability of losing all colour")
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur over 3 or 5 pixels")
    jpeg: Fraction = Field(0.0, description="probability of a JPEG's losses, quality 50 to 95")
    crop: Literal[0] | Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        0, description="height and width of a random part of the frame to learn from; 0 is the whole frame"
    )


Norm = Literal["batch", "group", "none"]


class Network(Section):
    """Which network, how large, from which weights."""

    name: Literal["unet", "timm_unet"] = Field("unet", description="unet: the paper's; timm_unet: a timm encoder")
    width: int = Field(32, ge=4, le=512, description="unet: channels of its first level, doubled at each further one")
    max_width: int = Field(256, ge=4, le=2048, description="unet: the most channels of a level")
    depth: int = Field(4, ge=1, le=6, description="unet: number of times the size is halved")
    stem: Literal[1, 2, 4] = Field(
        1, description="side of the squares of pixels that enter as channels of one and leave as pixels again"
    )
    encoder: str = Field("mobilenetv2_100", description="timm_unet: name of the timm encoder")
    weights: str = Field("none", description="timm_unet: hub (timm's pretrained), none, or a file")
    decoder: list[Positive] = Field(
        [128, 64, 32, 24, 16], min_length=1, description="timm_unet: channels of its levels, coarse to fine"
    )
    norm: Norm = Field("batch", description="normalisation (timm_unet: in the decoder); group suits small batches")
    attention: Literal["none", "scse"] = Field("none", description="timm_unet: attention behind each decoder level")
    enlarge: Literal["nearest", "bilinear"] = Field("nearest", description="timm_unet: how a decoder level doubles")
    detail: int = Field(
        0,
        ge=0,
        le=256,
        description="timm_unet: channels of two convolutions on the photo, before it joins at the end; 0: none",
    )
    freeze: int = Field(
        0,
        ge=0,
        le=8,
        description="timm_unet: how many of the encoder's features, finest first, keep the weights that it was given",
    )
    init_from: str = Field(
        "none", description="run of the same split from whose best weights each fold starts, in place of weights"
    )


class Loss(Section):
    """The weights of the terms of the loss and of the pixels in them, and the target of all."""

    bce: float = Field(1.0, ge=0, description="binary cross-entropy on logits")
    dice: float = Field(0.0, ge=0, description="1 - soft Dice, per image")
    boundary: float = Field(
        1.0, ge=1, le=100, description="weight in bce of the pixels near the outline, where all others have 1"
    )
    boundary_width: int = Field(
        41,
        ge=3,
        le=1023,
        description="near is a square window of so many pixels of the input that the outline crosses",
    )
    targets: Literal["soft", "hard"] = Field(
        "soft",
        description="soft: the part of a pixel that is car; hard: that part rounded to car (half or more) or not",
    )

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if self.bce == self.dice == 0:
            raise ValueError("loss.bce and loss.dice cannot both be 0; one of them has to train the network")
        return self

    @model_validator(mode="after")
    def _possible_boundary(self) -> Self:
        if self.boundary > 1 and self.bce == 0:
            raise ValueError("loss.boundary weights the pixels of loss.bce, which is 0; give loss.bce a weight")
        if self.boundary_width % 2 == 0:
            raise ValueError(
                f"loss.boundary_width={self.boundary_width} has no middle pixel; {self.boundary_width + 1} has"
            )
        return self


Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Train(Section):
    """The trainer."""

    epochs: Positive = Field(20, description="passes over the training images")
    batch_size: BatchSize = Field(
        8,
        description="images a step; auto: as many as fit the GPU's memory, a power of two up to 64, or 8 on a CPU, "
        "and no more than there are; the run keeps the number that it begins with",
    )
    accumulate: Positive = Field(1, description="steps whose gradients are averaged for one update")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has Nesterov momentum 0.9")
    lr: float = Field(1e-3, gt=0, le=10, description="highest learning rate")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="not applied to biases and normalisation")
    schedule: Literal["onecycle", "cosine", "step", "constant"] = Field(
        "onecycle", description="of the learning rate"
    )
    milestones: list[Fraction] = Field(
        [0.5, 0.75], description="step: parts of the training after which the rate is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of the rate at each milestone")
    warmup: float = Field(0.1, ge=0, lt=1, description="part of the training in which the rate rises")
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 is no limit")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights; 0 trains without them")
    precision: Precision = Field(
        "auto", description="auto: bf16 where the device computes in it, else fp16 on a GPU, fp32 on a CPU"
    )
    validate_every: Positive = Field(1, description="epochs between validations; the last is always validated")
    workers: int = Field(2, ge=0, le=64, description="processes that prepare samples; 0 prepares in the trainer")
    cache: bool = Field(False, description="keep the training images in memory at the network's size")
    save_seconds: float = Field(120, ge=0, description="seconds between checkpoints within an epoch")


class Inference(Section):
    """From trained folds to masks. May differ from one call to the next."""

    tta: list[TTA] = Field(["identity", "hflip"], min_length=1, description="test-time augmentations to average")
    threshold: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto", description="car is at or above it; auto: 0.5, or what cross-validation found better"
    )
    member_weights: Literal["auto", "equal"] | Annotated[list[Weight], Field(min_length=1)] = Field(
        "auto",
        description="weight of each of RUNS; auto: equal weights, or better ones found by cross-validation",
    )
    precision: Precision = Field("auto", description="as train.precision")
    pseudo: float = Field(0.05, gt=0, le=1, description="part of the test set that make pseudo keeps, the surest")
    compile: bool = Field(False, description="let torch.compile make code for the networks before predicting")
    batch_size: Positive = Field(8, description="images that go through the network together, if memory allows")
    shard: Positive = Field(256, description="images between two points where a killed prediction goes on")
    readers: int = Field(2, ge=1, le=64, description="threads that read and that encode")

    @model_validator(mode="after")
    def _one_run_counts(self) -> Self:
        if not isinstance(self.member_weights, str) and not any(self.member_weights):
            raise ValueError(
                f"inference.member_weights={self.member_weights} gives every run weight 0; give one a weight above 0"
            )
        return self


class Settings(Section):
    """All settings of a run."""

    seed: int = Field(1, ge=0, le=2**31 - 1, description="of everything random")
    data: Data = Data()
    split: Split = Split()
    input: Input = Input()
    augment: Augment = Augment()
    network: Network = Network()
    loss: Loss = Loss()
    train: Train = Train()
    inference: Inference = Inference()

    @model_validator(mode="after")
    def _crop_within_input(self) -> Self:
        crop, frame = self.augment.crop, self.input
        if crop and (crop[0] > frame.height or crop[1] > frame.width):
            raise ValueError(
                f"augment.crop={crop} is larger than the input of height {frame.height} and width {frame.width} that "
                "it is cut from; give a smaller crop or a larger input"
            )
        return self

    def with_batch_size(self, size: BatchSize) -> Self:
        """The same settings with another ``train.batch_size``."""
        return self.model_copy(update={"train": self.train.model_copy(update={"batch_size": size})})

    def with_folds(self, folds: int) -> Self:
        """The same settings with another ``split.folds``."""
        return self.model_copy(update={"split": self.split.model_copy(update={"folds": folds})})


def flat(settings: Settings) -> dict[str, Any]:
    """Settings as ``{"train.epochs": 20, ...}``."""
    return _flat(settings.model_dump(), "")


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
