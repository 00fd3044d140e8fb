"""Recipes: typed TOML files with every hyper-parameter of a run."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hwgen.errors import InputError
from model.settings import ModelSection, SearchSection, Section, TrainSection, model_section


class Recipe(Section):
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
        data["model"] = model_section(data["model"])
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
    overridden = {item.partition("=")[0].strip() for item in overrides}
    if recipe.search.method == "uniform":
        found += [
            f"'{name}': uniform bits cost what they cost; leave the budget out, or search with another search.method."
            for name in ("search.budget", "search.target")
            if name in overridden
        ]
    if recipe.search.joint and recipe.search.method in ("uniform", "random"):
        found.append(
            f"'search.joint': engine and bits are chosen in turn by a search, and '{recipe.search.method}' is none; leave --joint"
            " (search.joint) out: the engine is chosen for the bits all the same."
        )
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
