"""The sections of a recipe, every setting with its type, range, default and a sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NETWORKS = (
    "resnet", "resnet8", "resnet20", "resnet32", "resnet56", "resnet18", "resnet34", "cnv", "mlp",
)  # fmt: skip
Bits = Annotated[int, Field(ge=1, le=8)]
# Bounds far beyond all use: inside them float32 holds what is computed, so that what goes wrong is seen in training, and told.
Rate = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-4, le=1e4, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
Epochs = Annotated[int, Field(ge=0, le=10_000)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Stage = tuple[
    Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=200)], Annotated[int, Field(ge=1, le=15)]
]


def model_section(network: str) -> dict[str, Any]:
    """What `model = "NETWORK"` is short for."""
    # Where there is no such network, its name is not complained about too.
    name = re.sub(r"[^\w.-]", "_", network.rpartition(":")[2]) or "network"
    return {"network": network, "name": name}


def _network(name: str) -> str:
    if name not in NETWORKS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise PydanticCustomError(
            "network",
            "there is no such network; there are {known}, and package.module:factory",
            {"known": ", ".join(NETWORKS)},
        )
    return name


class ModelSection(Section):
    """[model]: what is searched. `model = "resnet20"` or `model = "package.module:factory"` is short for its `network`."""

    name: Annotated[str, Field(description="name of the network in files and reports", pattern=r"^[\w.-]+$")]
    network: Annotated[
        str,
        AfterValidator(_network),
        Field(
            description=f"built-in network ({', '.join(NETWORKS)}), or package.module:factory, a function that returns an nn.Module",
        ),
    ] = "resnet"
    options: Annotated[dict[str, Any], Field(description="what the factory, or a built-in network, is called with")] = {}
    stem: Annotated[int, Field(ge=1, le=1024, description="resnet: channels of the first convolution")] = 16
    stages: Annotated[
        list[Stage], Field(min_length=1, description="resnet: [channels, blocks, stride] of each stage")
    ] = [(16, 1, 1), (32, 1, 2), (64, 1, 2)]
    shortcut: Annotated[
        Literal["projection", "a"] | None,
        Field(description="residual networks: shortcut where shapes change; left out: the network's own"),
    ] = None
    weights: Annotated[str | None, Field(description="file with the module's state dict to start from")] = None
    mean: Annotated[list[Mean] | None, Field(description="means that those weights expect subtracted, per channel")] = (
        None
    )
    std: Annotated[
        list[Deviation] | None, Field(description="deviations that those weights expect divided by, per channel")
    ] = None

    @property
    def residual(self) -> bool:
        """Whether it is a built-in network with shortcuts."""
        return ":" not in self.network and self.network.startswith("resnet")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return model_section(data) if isinstance(data, str) else data


Range = Annotated[list[Bits], Field(min_length=2, max_length=2)]


class LayerRule(Section):
    """[search.layers."NAME OR PATTERN"]: other candidates for the layers that it matches; activations are the layer's input."""

    weight_bits: Annotated[
        list[Bits] | None, Field(min_length=1, description="candidate weight bits of these layers")
    ] = None
    activation_bits: Annotated[
        list[Bits] | None, Field(min_length=1, description="candidate bits of these layers' input")
    ] = None
    weight_range: Annotated[Range | None, Field(description="[least, most] weight bits of these layers")] = None
    activation_range: Annotated[Range | None, Field(description="[least, most] bits of these layers' input")] = None


class SearchSection(Section):
    """[search]: the bit search."""

    method: Annotated[
        Literal["ebs-det", "ebs-sto", "dnas", "uniform", "random"],
        Field(
            description="how bits are chosen: EBS, a DNAS-style supernet, the same everywhere, or at random in the budget"
        ),
    ] = "ebs-det"
    weight_bits: Annotated[list[Bits], Field(min_length=1, description="candidate weight bits")] = [1, 2, 3, 4, 5]
    activation_bits: Annotated[list[Bits], Field(min_length=1, description="candidate activation bits")] = [1, 2, 3, 4, 5]
    uniform: Annotated[
        list[Bits], Field(min_length=2, max_length=2, description="[weight, activation] bits of method uniform")
    ] = [3, 3]
    pinned: Annotated[
        int,
        Field(ge=0, le=8, description="bits of the first and last layer's weights and the last one's input; 0: searched"),
    ] = 8
    weight_quantiser: Annotated[
        Literal["dorefa", "lsq", "lsq-channel"],
        Field(description="weights: DoReFa's tanh, a learned step size, or one by each output channel's size"),
    ] = "dorefa"
    activation_quantiser: Annotated[
        Literal["lsq", "pact"],
        Field(
            description="gradient of an activation's clip: rounding below it counts too (learned step size), or PACT's"
        ),
    ] = "lsq"
    layers: Annotated[dict[str, LayerRule], Field(description="other candidates by layer name or pattern")] = {}
    cost: Annotated[
        Literal["cycles", "bitops", "bytes"],
        Field(description="what the budget counts: cycles of the engine, bit operations, or bytes of weights"),
    ] = "cycles"
    budget: Annotated[
        float, Field(gt=0, le=1e6, allow_inf_nan=False, description="budget as a share of the cost of uniform W4A4")
    ] = 0.6
    target: Annotated[
        int | None, Field(ge=1, le=10**15, description="budget in units of the cost instead of a share")
    ] = None
    joint: Annotated[
        int, Field(ge=0, le=20, description="times the engine's shape is chosen anew during the search (cycles only)")
    ] = 0
    hold_out: Annotated[float, Field(gt=0, lt=0.9, description="share of the training set that trains the strengths")] = (
        0.33
    )
    epochs: Annotated[Epochs, Field(description="epochs of the search")] = 20
    warm: Annotated[float, Field(ge=0, le=1, description="share of these epochs that trains the weights alone")] = 0.2
    strength_rate: Annotated[Rate, Field(description="learning rate of the strengths (Adam)")] = 0.05
    strength_betas: Annotated[Betas, Field(description="decay of the means of the strengths' gradients (Adam)")] = [
        0.5,
        0.999,
    ]
    cost_weight: Annotated[
        float, Field(ge=0, le=1e9, allow_inf_nan=False, description="weight of the cost term above the budget")
    ] = 2.0
    descent: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of the strengths' training in which the cost term's budget falls from the candidates' mean",
        ),
    ] = 0.0
    temperature: Annotated[
        list[Temperature], Field(min_length=2, max_length=2, description="[first, last] softmax temperature")
    ] = [1.0, 0.2]
    finals: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="EBS: assignments of the same cost that are retrained for an epoch each before one is chosen; 0: none",
        ),
    ] = 0
    final_images: Annotated[int, Field(ge=1, description="held-out images, at most, that finals are compared on")] = 16384
    trials: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="EBS-Sto: assignments near the likeliest whose held-out loss is measured before the bits are chosen",
        ),
    ] = 100
    trial_images: Annotated[int, Field(ge=1, description="held-out images, at most, that trials are compared on")] = 4096


class TrainSection(Section):
    """[train]: float training, retraining and the integer stage."""

    batch: Annotated[int, Field(ge=2, le=65536, description="images per step")] = 64
    float_epochs: Annotated[Epochs, Field(description="epochs of float training")] = 25
    epochs: Annotated[Epochs, Field(description="epochs of retraining at the chosen bits")] = 25
    integer_epochs: Annotated[Epochs, Field(description="last epochs, batch norm frozen, on folded integers")] = 5
    rate: Annotated[Rate, Field(description="highest learning rate of float training (cosine)")] = 0.004
    quantised_rate: Annotated[Rate, Field(description="highest learning rate of search and retraining")] = 0.002
    clip_rate: Annotated[Rate, Field(description="learning rate of clips and steps")] = 0.01
    clip_decay: Annotated[Decay, Field(description="decay of clips and steps")] = 0.0
    decay: Annotated[Decay, Field(description="weight decay")] = 0.0005
    optimiser: Annotated[
        Literal["adamw", "sgd"], Field(description="optimiser of the weights: AdamW, or SGD with Nesterov momentum")
    ] = "adamw"
    momentum: Annotated[float, Field(gt=0, lt=1, description="SGD: momentum")] = 0.9
    betas: Annotated[
        Betas, Field(description="decay of the means of gradients: AdamW's of weights, Adam's of clips and steps")
    ] = [0.9, 0.999]
    gradient_norm: Annotated[
        float, Field(gt=0, le=1e30, description="longest gradient of the weights; a longer one is scaled down to it")
    ] = 5.0
    most_steps: Annotated[
        int | None, Field(ge=1, description="steps of an epoch at most; left out: all images are seen")
    ] = None
    start: Annotated[
        Literal["meta", "float"], Field(description="retraining starts from the search's meta weights or the float ones")
    ] = "meta"
    float_from: Annotated[
        str | None, Field(description="run folder whose float network is taken instead of training one")
    ] = None
    distil: Annotated[
        float, Field(ge=0, le=1, description="share of the retraining loss that follows the float network's logits")
    ] = 0.0
    distil_temperature: Annotated[Temperature, Field(description="softmax temperature of distillation")] = 4.0
    calibration_images: Annotated[
        int, Field(ge=1, description="training images, at most, that clips are set on before they are trained")
    ] = 512
    calibration_quantile: Annotated[
        float, Field(gt=0, le=1, description="share of a tensor's float values that its clip holds before it is trained")
    ] = 0.999
    norm_batches: Annotated[
        int, Field(ge=0, le=10_000, description="batches that re-estimate batch norm once the bits are chosen")
    ] = 20
    autocast: Annotated[
        bool, Field(description="convolve codes in bfloat16 (exact up to 8 bits) but for the last stage")
    ] = False
    threads: Annotated[
        int,
        Field(ge=1, le=256, description="threads that compute on a CPU; another number adds sums up in another order"),
    ] = 2
    shift: Annotated[int, Field(ge=0, le=4, description="augmentation: pixels an image is moved at most")] = 1
    flip: Annotated[bool, Field(description="augmentation: mirror half of the images")] = False
