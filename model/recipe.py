"""Recipes: typed TOML files with every hyper-parameter of a run."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hwgen.errors import InputError

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
Epochs = Annotated[int, Field(ge=0, le=10_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Stage = tuple[
    Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=200)], Annotated[int, Field(ge=1, le=15)]
]


def _model_section(network: str) -> dict[str, Any]:
    """What `model = "NETWORK"` is short for."""
    return {"network": network, "name": network.rpartition(":")[2]}


class ModelSection(_Section):
    """[model]: what is searched. `model = "resnet20"` or `model = "package.module:factory"` is short for its `network`."""

    name: Annotated[str, Field(description="name of the network in files and reports", pattern=r"^[\w.-]+$")]
    network: Annotated[
        str,
        Field(
            pattern=rf"^({'|'.join(NETWORKS)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
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
        return _model_section(data) if isinstance(data, str) else data


Range = Annotated[list[Bits], Field(min_length=2, max_length=2)]


class LayerRule(_Section):
    """[search.layers."NAME OR PATTERN"]: other candidates for the layers that it matches; activations are the layer's input."""

    weight_bits: Annotated[
        list[Bits] | None, Field(min_length=1, description="candidate weight bits of these layers")
    ] = None
    activation_bits: Annotated[
        list[Bits] | None, Field(min_length=1, description="candidate bits of these layers' input")
    ] = None
    weight_range: Annotated[Range | None, Field(description="[least, most] weight bits of these layers")] = None
    activation_range: Annotated[Range | None, Field(description="[least, most] bits of these layers' input")] = None


class SearchSection(_Section):
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
    probe_steps: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="EBS: steps of retraining after each change of one operand by a bit, whose losses choose bits for the finals; 0: none",
        ),
    ] = 0
    trials: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="EBS-Sto: assignments near the likeliest whose held-out loss is measured before the bits are chosen",
        ),
    ] = 100


class TrainSection(_Section):
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
        Literal["adamw", "sgd"], Field(description="optimiser of the weights: AdamW, or SGD with Nesterov momentum 0.9")
    ] = "adamw"
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


class Recipe(_Section):
    """A whole recipe."""

    data: Annotated[Literal["digits", "cifar10", "imagenet"], Field(description="data set")] = "digits"
    data_path: Annotated[str, Field(description="where the data set's files are; digits need none")] = ""
    tuning_share: Annotated[
        float,
        Field(
            ge=0,
            lt=0.9,
            description="share of the training set that stands in for the test set while settings are tuned; 0: the test set itself",
        ),
    ] = 0.0
    # scikit-learn, which holds images out, takes 32 bits.
    seed: Annotated[int, Field(ge=0, lt=1 << 32, description="seed of everything random")] = 1
    model: ModelSection
    search: SearchSection = SearchSection()
    train: TrainSection = TrainSection()

    @property
    def digest(self) -> str:
        """Identity of the recipe's content; where the data lies does not belong to it, nor what has its default: a new setting
        leaves old runs what they are."""
        content = self.model_dump(mode="json", exclude={"data_path"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Recipe, new: Recipe) -> list[str]:
    """What another recipe sets otherwise, a phrase per setting; where the data lies does not count."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in values.items():
            made |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return made

    before, after = (flat(item.model_dump(mode="json", exclude={"data_path"})) for item in (old, new))
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _parts(key: str) -> list[str]:
    """The parts of a TOML key; none: it is no such key."""
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return []
    parts = []
    while isinstance(inner, dict) and len(inner) == 1:
        ((name, inner),) = inner.items()
        parts.append(name)
    return [] if isinstance(inner, dict) else parts


def _set(data: dict[str, Any], assignment: str, problems: list[str]) -> None:
    key, equals, text = assignment.partition("=")
    if not equals:
        problems.append(f"'{assignment}' is not an override; write section.name=value.")
        return
    parts = _parts(key)
    if not parts:
        problems.append(
            f"'{key}' is not a setting's name; a part with other signs than letters, digits, - and _ stands in double"
            ' quotes, as in search.layers."block1.*".weight_bits.'
        )
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, name = parts
    if sections[:1] == ["model"] and isinstance(data.get("model"), str):
        data["model"] = _model_section(data["model"])
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            problems.append(f"'{key}' is not a setting: '{section}' is no section.")
            return
        data = inner
    data[name] = value


def sentences(error: ValidationError, kind: str) -> list[str]:
    """What is wrong with a file of settings, a sentence per setting. kind: of file, for people."""
    made = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        shown = "" if item["type"] in ("missing", "extra_forbidden") else f" (it is {item['input']!r:.60})"
        what = item["msg"][:1].lower() + item["msg"][1:]
        if item["type"] == "extra_forbidden":
            dotted = "; a layer's name that has dots stands in double quotes" if "layers" in item["loc"] else ""
            what = f"is not a setting of a {kind}{dotted}"
        made.append(f"'{field}': {what}{shown}.")
    return made


def _without_effect(recipe: Recipe, overrides: list[str]) -> list[str]:
    """What is asked for and would do nothing, a sentence each.

    A recipe states every setting, so it may state a budget beside uniform bits; who overrides it wants something of it.
    """
    section = recipe.model
    found = []
    for name, used, by in (
        ("stem", section.network == "resnet", "network 'resnet'"),
        ("stages", section.network == "resnet", "network 'resnet'"),
        ("shortcut", section.residual, "the residual networks that are built in"),
    ):
        if not used and getattr(section, name) != ModelSection.model_fields[name].default:
            found.append(
                f"'model.{name}': network '{section.network}' does not use it, only {by} would; leave it out"
                " (--set model=NETWORK leaves out the recipe's), or set what the network takes in model.options."
            )
    if recipe.search.method == "uniform" and any(item.partition("=")[0].strip() == "search.budget" for item in overrides):
        found.append(
            "'search.budget': uniform bits cost what they cost; leave the budget out, or search with another search.method."
        )
    if recipe.search.probe_steps and recipe.search.finals < 2:
        found.append("'search.probe_steps': probes choose a finalist; set search.finals to 2 or more.")
    return found


def read_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe; ``overrides`` are "section.name=value".

    Raises:
        InputError: unreadable, unknown settings, values out of range, or settings that would do nothing; all at once.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read it: {error.strerror}.", str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"It is not TOML: {error}.", str(path)) from None
    problems: list[str] = []
    for assignment in overrides or []:
        _set(data, assignment, problems)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += sentences(error, "recipe")
    else:
        problems += _without_effect(recipe, overrides or [])
    if problems:
        raise InputError(problems, str(path))
    return recipe
