"""Studies: TOML files that say which rows of a comparison on CIFAR-10 are trained, and with what settings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwgen.errors import InputError
from model.recipe import sentences
from model.settings import Bits

HERE = Path(__file__).resolve().parent
FLOAT = "float"
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=1000)]], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Row(_Section):
    """A network that is trained once per seed. Every row but the float one has a method."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    method: Literal["uniform", "random", "ebs-det", "ebs-sto", "dnas"] | None = None
    uniform: Annotated[list[Bits], Field(min_length=2, max_length=2, description="weight and activation bits")] | None = (
        None
    )
    cycles_of: Annotated[str | None, Field(description="the row whose cycles are this one's budget")] = None
    bitops_of: Annotated[str | None, Field(description="the row whose bit operations are this one's budget")] = None
    share: Annotated[float, Field(gt=0, le=1, description="how much of that row's cost is the budget")] = 1
    draw: Annotated[int, Field(ge=0, description="which random assignment")] = 0
    seeds: Annotated[Seeds | None, Field(description="left out: the study's")] = None
    set: Annotated[list[str], Field(description="section.name=value in the recipe, for this row")] = []

    @property
    def equals(self) -> str | None:
        """The row whose cost is this one's budget."""
        return self.cycles_of or self.bitops_of


class Study(_Section):
    """Rows that share a recipe, a board and an engine."""

    recipe: Annotated[str, Field(description="relative to the folder of the benchmarks")]
    board: str
    engine: Annotated[str, Field(description="relative to the folder of the benchmarks")]
    seeds: Seeds
    set: Annotated[list[str], Field(description="section.name=value in the recipe, for all rows")] = []
    quantised: Annotated[list[str], Field(description="the same for all rows but the float one")] = []
    row: Annotated[list[Row], Field(min_length=1)]

    def seeds_of(self, row: Row) -> list[int]:
        """The seeds that a row is trained with."""
        return self.seeds if row.seeds is None else row.seeds

    def jobs(self) -> Iterator[tuple[Row, int]]:
        """What is to be trained, in order: all rows of the least seed, then of the next."""
        for seed in sorted({seed for row in self.row for seed in self.seeds_of(row)}):
            yield from ((row, seed) for row in self.row if seed in self.seeds_of(row))

    def given(self, row: Row) -> list[str]:
        """The overrides for all rows, those for all but the float one, and the row's own."""
        return [*self.set, *([] if row.name == FLOAT else self.quantised), *row.set]

    def settings(self, row: Row) -> list[str]:
        """What the study sets for a row, wherever it runs; a finished row is taken over only where it is the same."""
        own = row.model_dump(exclude_unset=True, exclude={"name", "set", "seeds"})
        return [*self.given(row), *(f"{name}={value}" for name, value in own.items())]

    def trying(self, tried: Sequence[str]) -> Study:
        """The study with more overrides for every row."""
        return self.model_copy(update={"row": [row.model_copy(update={"set": [*row.set, *tried]}) for row in self.row]})


def _problems(study: Study) -> list[str]:
    """What is wrong between rows: the float row comes first, and a row comes after the one whose cost it takes, with its seeds."""
    before: dict[str, Row] = {}
    found = []
    for row in study.row:
        if row.name in before:
            found.append(f"There are two rows '{row.name}'.")
        if not before and row.name != FLOAT:
            found.append(f"The first row is '{row.name}'; every other row starts from '{FLOAT}'.")
        if row.name != FLOAT and row.method is None:
            found.append(f"Row '{row.name}' has no 'method'.")
        if (row.uniform is None) == (row.method == "uniform"):
            found.append(f"Row '{row.name}': 'uniform' gives the bits of the method \"uniform\", and of no other.")
        if row.cycles_of and row.bitops_of:
            found.append(f"Row '{row.name}' has 'cycles_of' and 'bitops_of'; a search has one budget.")
        if row.share != 1 and row.equals is None:
            found.append(f"Row '{row.name}' takes the share {row.share} of no cost; add 'cycles_of' or 'bitops_of'.")
        if row.equals and row.equals not in before:
            found.append(f"Row '{row.name}' takes the cost of '{row.equals}', which does not come before it.")
        for needed in dict.fromkeys([FLOAT, row.equals]):
            if needed in before and (missing := sorted({*study.seeds_of(row)} - {*study.seeds_of(before[needed])})):
                seeds = ", ".join(map(str, missing))
                found.append(f"Row '{row.name}' has seeds that '{needed}', which it needs, has not: {seeds}.")
        before.setdefault(row.name, row)
    return found


def read_study(path: Path) -> Study:
    """A study's settings.

    Raises:
        InputError: it is no TOML file, or a setting is unknown, missing or out of range, or rows do not fit together.
        OSError: it cannot be read.
    """
    try:
        study = Study.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"It is not TOML: {error}.", str(path)) from None
    except ValidationError as error:
        raise InputError(sentences(error, "study"), str(path)) from None
    if wrong := _problems(study):
        raise InputError(wrong, str(path))
    return study
