"""The schema of the settings: the name, default, bounds and meaning of each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from competition.grouping import RULES, is_rule

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
BatchSize = Literal["auto"] | Positive
Weight = Annotated[float, Field(ge=0)]
Crop = Literal[0] | Annotated[list[Positive], Field(min_length=2, max_length=2)]
TTA = Literal["identity", "hflip", "vflip", "rot180"]
Orientation = Literal["auto", "displayed", "stored"]


class Section(BaseModel):
    """A group of settings. Unknown names are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_boolean(cls, value: object, info: ValidationInfo) -> object:
        """True is 1 in Python, but `workers: yes` is a mistake."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("boolean", "true and false are allowed for switches only")
        return value


class Data(Section):
    """Which photos and masks are used."""

    hq: bool = Field(False, description="read train_hq and test_hq where both kinds exist")
    orientation: Orientation = Field(
        "auto",
        description="displayed: apply the EXIF orientation of photos and masks; stored: ignore it; auto: stored for "
        "photos with Carvana's names, else displayed",
    )
    cars: str = Field(
        "auto",
        description="the photos that show one car: auto (names <car>_<view>, view 01 to 16; each other photo is a "
        "car of its own), photo (each photo is one), folder (train/<car>/), before:_ (the part of the name before "
        "the first _, or another separator), before_last:_ (before the last one)",
    )
    pseudo: str = Field(
        "none",
        description="run with the same split whose pseudo-labels of the test set are added to each training set",
    )
    leave_out: list[str] = Field(
        [],
        description="images or cars excluded from training, for example because their masks are wrong; still scored",
    )
    min_area: Fraction = Field(0.01, description="least part of a photo that a training mask must cover; 0: none")
    max_area: Fraction = Field(0.9, description="largest part of a photo that a training mask may cover")

    @field_validator("cars")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if not is_rule(value):
            raise ValueError(f"data.cars={value!r} is not allowed: {RULES}")
        return value


class Split(Section):
    """The division of the training cars into folds."""

    folds: int = Field(5, ge=2, le=100, description="number of folds")


SIDES = 32  # height and width of the input are multiples of this


class Input(Section):
    """The size of the network's input."""

    height: int = Field(
        256, ge=SIDES, le=4096, multiple_of=SIDES, description="height of the network's input, pixels"
    )
    width: int = Field(384, ge=SIDES, le=4096, multiple_of=SIDES, description="width of the network's input, pixels")
    fit: Literal["resize", "pad"] = Field(
        "resize", description="resize: scale the photo to this size; pad: keep its resolution and pad it to this size"
    )


class Augment(Section):
    """Random changes of a training sample."""

    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    affine: Fraction = Field(0.5, description="probability of a shift, scale and rotation")
    shift: float = Field(0.05, ge=0, le=0.5, description="affine: largest shift, as a fraction of the side")
    scale: float = Field(0.1, ge=0, le=0.9, description="affine: largest relative change of scale")
    rotate: float = Field(3.0, ge=0, le=180, description="affine: largest rotation, degrees")
    colour: Fraction = Field(0.5, description="probability of a change of brightness, contrast, saturation and hue")
    brightness: float = Field(0.15, ge=0, le=1, description="colour: largest relative change of brightness")
    contrast: float = Field(0.15, ge=0, le=1, description="colour: largest relative change of contrast")
    saturation: float = Field(0.2, ge=0, le=1, description="colour: largest relative change of saturation")
    hue: float = Field(
        0.0, ge=0, le=0.5, description="colour: largest change of hue, as a fraction of the colour circle"
    )
    grey: Fraction = Field(0.05, description="probability of conversion to grey")
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur with a kernel of 3 or 5 pixels")
    jpeg: Fraction = Field(0.0, description="probability of JPEG compression with quality 50 to 95")
    crop: Crop = Field(
        0, description="train on random crops of this [height, width] of the input; 0: on the whole input"
    )
    on_device: bool = Field(
        False,
        description="compute these changes where the network is trained, not in the workers: for a GPU; the same "
        "changes except for rounding",
    )

    @model_validator(mode="after")
    def _possible_on_device(self) -> Self:
        on_host = [name for name in ("blur", "jpeg") if getattr(self, name)]
        if self.on_device and on_host:
            raise ValueError(
                f"augment.{on_host[0]} is computed in the workers only; set augment.{on_host[0]}=0 or "
                "augment.on_device=false"
            )
        return self


Norm = Literal["batch", "group"]


class Network(Section):
    """The network and its starting weights."""

    name: Literal["unet", "timm_unet"] = Field(
        "unet", description="unet: plain U-Net; timm_unet: U-Net with a timm encoder"
    )
    width: int = Field(
        32, ge=4, le=512, description="unet: channels of the first level; each next level has twice as many"
    )
    max_width: int = Field(256, ge=4, le=2048, description="unet: maximum number of channels of a level")
    depth: int = Field(4, ge=1, le=6, description="unet: number of downsampling steps, each by 2")
    stem: Literal[1, 2, 4] = Field(
        1, description="space-to-depth by this factor at the input, undone at the output; 1: none"
    )
    encoder: str = Field("mobilenetv2_100", description="timm_unet: name of the timm encoder")
    weights: str = Field(
        "none",
        description="starting weights: none (random), studio (the shipped network), hub (timm's pretrained encoder), "
        "or a file: of a whole network that this project wrote, or of an encoder",
    )
    decoder: list[Positive] = Field(
        [128, 64, 32, 24, 16], min_length=1, description="timm_unet: channels of the decoder levels, coarse to fine"
    )
    norm: Norm = Field(
        "batch", description="batch or group normalization (timm_unet: in the decoder); group suits small batches"
    )
    detail: int = Field(
        0,
        ge=0,
        le=256,
        description="timm_unet: channels of two full-resolution convolutions that join the decoder's end; 0: none",
    )
    freeze: int = Field(
        0,
        ge=0,
        le=8,
        description="timm_unet: number of encoder stages, finest first, whose weights are not trained",
    )
    init_from: str = Field(
        "none",
        description="run with the same split; each fold starts from its best weights, and network.weights is ignored",
    )


def loss_term(weight: float, formula: str, description: str) -> Any:
    """The weight of a term of the loss; ``folds.losses`` has a function of the same name."""
    return Field(weight, ge=0, description=description, json_schema_extra={"formula": formula})


class Loss(Section):
    """The weights of the terms of the loss, the weights of pixels, and the kind of target."""

    bce: float = loss_term(1.0, "binary cross-entropy", "weight of the binary cross-entropy")
    dice: float = loss_term(0.0, "(1 − Dice)", "weight of 1 - soft Dice, computed per image")
    boundary: float = Field(
        1.0, ge=1, le=100, description="weight in loss.bce of pixels near the outline; other pixels have weight 1"
    )
    boundary_width: int = Field(
        41,
        ge=3,
        le=1023,
        description="side in input pixels of a square window; a pixel is near if its window has car and background",
    )
    targets: Literal["soft", "hard"] = Field(
        "soft",
        description="soft: the part of a pixel that is car, 0 to 1; hard: 1 if at least half of it is car, else 0",
    )

    @classmethod
    def formulas(cls) -> dict[str, str]:
        """The formula of each term, by its name."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return {name: str(extra["formula"]) for name, extra in extras.items() if isinstance(extra, dict)}

    def weights(self) -> dict[str, float]:
        """The weight of each term that has one above 0, by its name."""
        return {name: weight for name in self.formulas() if (weight := getattr(self, name))}

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if not self.weights():
            names = [f"loss.{name}" for name in self.formulas()]
            raise ValueError(f"{' and '.join(names)} cannot all be 0; give one of them a weight above 0")
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
    """Duration, optimizer, learning rate, precision and checkpoints of the training."""

    epochs: Positive = Field(20, description="passes over the training images")
    batch_size: BatchSize = Field(
        8,
        description="images per step; auto: the largest power of two up to 64 that fits in GPU memory, 8 on a CPU; "
        "chosen when the run is created",
    )
    accumulate: Positive = Field(1, description="steps whose gradients are averaged into one update")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="adamw, or sgd with Nesterov momentum 0.9")
    lr: float = Field(1e-3, gt=0, le=10, description="maximum learning rate")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="weight decay; not applied to biases and normalization")
    schedule: Literal["onecycle", "cosine", "step", "constant"] = Field(
        "onecycle", description="schedule of the learning rate"
    )
    milestones: list[Fraction] = Field(
        [0.5, 0.75],
        description="step: fractions of the training after which the learning rate is multiplied by gamma",
    )
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of the learning rate at each milestone")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of the training in which the learning rate rises")
    clip: float = Field(1.0, ge=0, description="maximum norm of the gradient; 0: no limit")
    ema: float = Field(
        0.99, ge=0, lt=1, description="decay of the exponential moving average of the weights; 0: no average"
    )
    precision: Precision = Field(
        "auto", description="auto: bf16 if the device supports it, else fp16 on a GPU and fp32 on a CPU"
    )
    validate_every: Positive = Field(1, description="epochs between validations; the last epoch is always validated")
    workers: int = Field(2, ge=0, le=64, description="processes that load samples; 0: the training process does it")
    cache: bool = Field(False, description="keep the resized training images in memory")
    save_seconds: float = Field(120, ge=0, description="seconds between checkpoints within an epoch")
    compile: bool = Field(False, description="compile the network with torch.compile for the training steps")
    cudnn_benchmark: bool = Field(
        False, description="on a GPU, time cuDNN's algorithms for the training steps and use the fastest"
    )


class FirstStage(Section):
    """A first stage of each fold's training: its values of some settings. It has the run's values of all others."""

    epochs: int = Field(
        0, ge=0, description="train.epochs of a first stage; each fold then starts from its best weights; 0: no stage"
    )
    batch_size: Positive = Field(8, description="train.batch_size of the first stage")
    accumulate: Positive = Field(1, description="train.accumulate of the first stage")
    lr: float = Field(1e-3, gt=0, le=10, description="train.lr of the first stage")
    scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="size of the input of the first stage, as a part of input.height and input.width",
    )
    crop: Crop = Field(0, description="augment.crop of the first stage")


class Inference(Section):
    """Prediction and scoring. These settings may change between calls."""

    tta: list[TTA] = Field(["identity", "hflip"], min_length=1, description="test-time augmentations to average")
    threshold: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto",
        description="lowest probability that counts as car; auto: 0.5, or a better one found by cross-validation",
    )
    member_weights: Literal["auto", "equal"] | Annotated[list[Weight], Field(min_length=1)] = Field(
        "auto",
        description="weight of each of RUNS; auto: equal weights, or better ones found by cross-validation",
    )
    precision: Precision = Field("auto", description="as train.precision, for prediction")
    engine: Literal["auto", "torch", "onnxruntime"] = Field(
        "auto",
        description="what computes the networks; onnxruntime: on a CPU, in fp32; auto: onnxruntime on a CPU without "
        "bf16 if it is installed, else torch",
    )
    pseudo: float = Field(
        0.05,
        gt=0,
        le=1,
        description="fraction of the test set that make pseudo keeps: the images with the most certain predictions",
    )
    compile: bool = Field(False, description="compile the networks with torch.compile before predicting")
    batch_size: Positive = Field(8, description="images per forward pass; fewer if they do not fit in memory")
    shard: Positive = Field(
        256, description="images per shard; an interrupted prediction resumes at the last complete shard"
    )
    readers: int = Field(2, ge=1, le=64, description="threads that read photos, and threads that encode masks")

    @model_validator(mode="after")
    def _possible_engine(self) -> Self:
        if self.engine == "onnxruntime" and self.compile:
            raise ValueError("inference.compile=true compiles the networks of torch; use inference.engine=torch")
        if self.engine == "onnxruntime" and self.precision not in ("auto", "fp32"):
            raise ValueError(
                f"inference.engine=onnxruntime computes in fp32, not in {self.precision}; use "
                "inference.engine=torch, or inference.precision=fp32"
            )
        return self

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not isinstance(self.member_weights, str) and not any(self.member_weights):
            raise ValueError(
                f"inference.member_weights={self.member_weights} gives every run weight 0; give one a weight above 0"
            )
        return self


class Settings(Section):
    """All sections, and the seed. Stored in settings.yaml; fixed once the run exists, except ``inference``."""

    seed: int = Field(1, ge=0, le=2**31 - 1, description="seed of the split, the starting weights and the training")
    data: Data = Data()
    split: Split = Split()
    input: Input = Input()
    augment: Augment = Augment()
    network: Network = Network()
    loss: Loss = Loss()
    train: Train = Train()
    first_stage: FirstStage = FirstStage()
    inference: Inference = Inference()

    @model_validator(mode="after")
    def _possible_first_input(self) -> Self:
        scale, first = self.first_stage.scale, self._first_input
        if not self.first_stage.epochs:
            return self
        if scale < 1 and self.input.fit == "pad":
            raise ValueError(
                f"first_stage.scale={scale:g} needs input.fit=resize: a padded photo keeps its size; use crops "
                "instead, first_stage.crop"
            )
        if any(side < SIDES or side % SIDES for side in (first.height, first.width)):
            raise ValueError(
                f"first_stage.scale={scale:g} makes an input of height {first.height} and width {first.width}, and "
                f"both must be multiples of {SIDES}; use first_stage.scale=1, or another size of the input"
            )
        return self

    @model_validator(mode="after")
    def _crop_within_input(self) -> Self:
        frames = {"augment": self.input, "first_stage": self._first_input}
        for (name, frame), crop in zip(frames.items(), (self.augment.crop, self.first_stage.crop), strict=True):
            if crop and (crop[0] > frame.height or crop[1] > frame.width):
                raise ValueError(
                    f"{name}.crop={crop} is larger than the input of height {frame.height} and width {frame.width} "
                    "that it is cut from; give a smaller crop or a larger input"
                )
        return self

    @property
    def stages(self) -> list[Self]:
        """The settings of each stage of a fold's training, in their order; the last are the run's own."""
        first = self.first_stage
        if not first.epochs:
            return [self]
        of_train = {name: getattr(first, name) for name in ("epochs", "batch_size", "accumulate", "lr")}
        # The window near the outline shows the same part of the photo.
        near = max(3, round(self.loss.boundary_width * first.scale) | 1)
        changes = {
            "input": self._first_input,
            "augment": self.augment.model_copy(update={"crop": first.crop}),
            "loss": self.loss.model_copy(update={"boundary_width": near}),
            "train": self.train.model_copy(update=of_train),
            "first_stage": FirstStage(),
        }
        return [self.model_copy(update=changes), self]

    @property
    def _first_input(self) -> Input:
        scale = self.first_stage.scale
        size = {"height": round(self.input.height * scale), "width": round(self.input.width * scale)}
        return self.input.model_copy(update=size)

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of a training sample: the crop, or the whole input."""
        crop = self.augment.crop
        return (crop[0], crop[1]) if crop else (self.input.height, self.input.width)

    @property
    def loaded_size(self) -> tuple[int, int]:
        """Height and width of a sample as the workers load it."""
        return (self.input.height, self.input.width) if self.augment.on_device else self.sample_size

    def with_batch_size(self, size: BatchSize) -> Self:
        """Return a copy with this ``train.batch_size``."""
        return self.model_copy(update={"train": self.train.model_copy(update={"batch_size": size})})

    def with_folds(self, folds: int) -> Self:
        """Return a copy with this ``split.folds``."""
        return self.model_copy(update={"split": self.split.model_copy(update={"folds": folds})})


def flat(settings: Settings) -> dict[str, Any]:
    """Return settings as ``{"train.epochs": 20, ...}``."""
    return _flat(settings.model_dump(), "")


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
