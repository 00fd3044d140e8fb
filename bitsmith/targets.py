"""Budgets as people say them (frames per second, kilobytes) turned into the recipe's own settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hwgen.board import load_board
from hwgen.errors import InputError

_JOINT_ROUNDS = 3
_MOST = 10**15  # of any cost; the next numbers are no longer exact in floating point


def _given(cycles: int | None, fps: float | None, bitops: float | None, kbytes: float | None) -> dict[str, float]:
    """The budgets that were typed, by their options."""
    every = {"--target-cycles": cycles, "--target-fps": fps, "--target-bitops": bitops, "--target-kbytes": kbytes}
    return {name: value for name, value in every.items() if value is not None}


@contextmanager
def as_typed(cycles: int | None, fps: float | None, bitops: float | None, kbytes: float | None) -> Iterator[None]:
    """Complaints about 'search.target' name the option that it was typed as."""
    try:
        yield
    except InputError as error:
        typed = next(iter(_given(cycles, fps, bitops, kbytes)), "'search.target'")
        error.problems = [problem.replace("'search.target'", typed) for problem in error.problems]
        error.subject = error.subject and error.subject.replace("'search.target'", typed)
        raise


def target_overrides(
    board: str,
    cycles: int | None = None,
    fps: float | None = None,
    bitops: float | None = None,
    kbytes: float | None = None,
    *,
    joint: bool = False,
) -> list[str]:
    """Overrides ``section.name=value`` for at most one budget.

    Args:
        fps: images per second at the board's clock. bitops: in 10^9 bit operations per image. kbytes: in 1,000 bytes.

    Raises:
        InputError: several budgets, one that is not positive or no network's, or ``joint`` with one that no engine changes.
    """
    given = _given(cycles, fps, bitops, kbytes)
    named = list(given)
    problems = []
    if len(named) > 1:
        problems.append(f"{', '.join(named)}: give one budget.")
    problems += [f"{name}: it must be above 0." for name in named if not given[name] > 0]
    if joint and (bitops is not None or kbytes is not None):
        problems.append("--joint chooses the engine by cycles; give --target-cycles or --target-fps.")
    if problems:
        raise InputError(problems)
    made = [f"search.joint={_JOINT_ROUNDS}"] if joint else []
    wanted = cycles if fps is None else load_board(board).clock_mhz * 1e6 / fps
    for cost, target in (("cycles", wanted), ("bitops", bitops and bitops * 1e9), ("bytes", kbytes and kbytes * 1000)):
        if target is not None:
            if target > _MOST:
                raise InputError(
                    f"{named[0]}: {given[named[0]]} asks for {target:g} {cost}; no network costs more than {_MOST:g}."
                )
            if target < 1:
                raise InputError(
                    f"{named[0]}: {given[named[0]]} asks for {target:g} {cost}; no network costs less than 1."
                )
            made += [f'search.cost="{cost}"', f"search.target={int(target)}"]
    return made
