"""From strengths to bits: layers in groups, their expected cost, and the assignment that holds the budget of the program."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from hwgen.errors import InputError
from model.assign import Group, Knapsack, Layer, Option, as_bits, extremes, options, out_of_reach, total_cost
from model.cost import Table
from model.nodes import Choice, Context, Mode, WeightedNode
from model.quantnet import QuantNet
from model.recipe import LayerRule

Bits = dict[str, tuple[int, int]]
WINDOW = 0.01  # of the budget may stay unused where an assignment exists in between
_ROUNDS = 24
_NO_PROGRAM = 1 << 62
_NEIGHBOURS = 400  # programs assembled at most while looking near an assignment


# -------------------------------------------------------------------------------- bits of a network
def fix_bits(net: QuantNet, bits: Mapping[str, tuple[int, int]]) -> None:
    """Set (weight, activation) bits by layer name; the activation bits are those of the layer's input."""
    for node in net.weighted():
        weight, activation = bits[node.name]
        node.choice.bits = weight
        choice = net.source_choice(node)
        if choice is not None:
            choice.bits = activation


def free_bits(net: QuantNet) -> None:
    """Mix the candidates again wherever there are several."""
    for choice in net.modules():
        if isinstance(choice, Choice) and choice.searchable:
            choice.bits = None


def input_bits(net: QuantNet, node: WeightedNode) -> tuple[int, ...]:
    """Candidates of a weighted node's input: the image's own bits, or its choice's."""
    choice = net.source_choice(node)
    return (net.input_bits,) if choice is None else choice.candidates


def uniform_bits(net: QuantNet, weight: int, activation: int) -> Bits:
    """The same bits everywhere but where an operand has one candidate (the image, pinned layers)."""

    def pick(candidates: tuple[int, ...], bits: int, least: int) -> int:
        return candidates[0] if len(candidates) == 1 else max(bits, least)

    bits = {}
    for node in net.weighted():
        choice = net.source_choice(node)
        least = 1 if choice is None else choice.least
        bits[node.name] = (pick(node.choice.candidates, weight, 1), pick(input_bits(net, node), activation, least))
    return bits


def apply_rules(net: QuantNet, rules: Mapping[str, LayerRule]) -> None:
    """Restrict candidates by layer; a rule's key is a layer's name or a pattern (``block1.*``). Later rules win.

    Raises:
        InputError: a key that matches no layer, or a layer that is left without candidates; all at once.
    """
    names = [node.name for node in net.weighted()]
    problems = []
    for pattern, rule in rules.items():
        nodes = [node for node in net.weighted() if fnmatch.fnmatchcase(node.name, pattern)]
        if not nodes:
            problems.append(f"'search.layers': '{pattern}' matches no layer; the layers are {', '.join(names)}.")
        for node in nodes:
            choice = net.source_choice(node)
            if choice is None and (rule.activation_bits or rule.activation_range):
                problems.append(
                    f"'search.layers.{pattern}': layer '{node.name}' reads the image, whose bits are given; leave its"
                    " activation bits out."
                )
            for operand, target, given, bounds in (
                ("weight", node.choice, rule.weight_bits, rule.weight_range),
                ("activation", choice, rule.activation_bits, rule.activation_range),
            ):
                if target is None or (given is None and bounds is None):
                    continue
                low, high = bounds or (1, 8)
                left = tuple(sorted(b for b in set(given or target.candidates) if max(low, target.least) <= b <= high))
                if left:
                    target.restrict(left)
                else:
                    problems.append(
                        f"'search.layers.{pattern}': no {operand} bits are left for layer '{node.name}' (candidates"
                        f" {', '.join(map(str, given or target.candidates))}, range {low} to {high})."
                    )
    if problems:
        raise InputError(problems, "recipe")


# -------------------------------------------------------------------------------- strengths
def groups(net: QuantNet, table: Table, context: Context) -> list[Group]:
    """Choices with their probabilities, layers that read one tensor together."""
    by_choice: dict[int, tuple[Choice | None, list[Layer]]] = {}
    for node in net.weighted():
        choice = net.source_choice(node)
        p = tuple(node.choice.probabilities(context).tolist())
        layer = Layer(node.name, node.choice.candidates, p, table[node.name])
        by_choice.setdefault(-1 - len(by_choice) if choice is None else id(choice), (choice, []))[1].append(layer)
    made = []
    for choice, layers in by_choice.values():
        if choice is None:
            made.append(Group((net.input_bits,), (1.0,), tuple(layers)))
        else:
            made.append(Group(choice.candidates, tuple(choice.probabilities(context).tolist()), tuple(layers)))
    return made


def random_groups(net: QuantNet, table: Table, seed: int) -> list[Group]:
    """The groups with random scores instead of probabilities: the likeliest assignment in a window is a random one."""
    rng = np.random.default_rng([seed, 0x5EED])

    def p(candidates: Sequence[int]) -> tuple[float, ...]:
        return tuple(rng.uniform(1e-6, 1.0, len(candidates)).tolist())

    return [
        Group(group.activation_bits, p(group.activation_bits),
              tuple(Layer(layer.name, layer.weight_bits, p(layer.weight_bits), layer.cost) for layer in group.layers))
        for group in groups(net, table, plain_context())
    ]  # fmt: skip


def plain_context(temperature: float = 1.0) -> Context:
    """The context of probabilities without noise."""
    return Context(Mode.QUANTISED, temperature)


def expected_cost(net: QuantNet, table: Table, context: Context) -> Tensor:
    """sum over layers of p_w^T table p_a, 0-dim, with its gradient to the strengths."""
    total: Tensor | None = None
    for node in net.weighted():
        choice = net.source_choice(node)
        rows = [bits - 1 for bits in node.choice.candidates]
        columns = [bits - 1 for bits in input_bits(net, node)]
        weights = node.choice.probabilities(context)
        costs = torch.from_numpy(table[node.name][np.ix_(rows, columns)]).to(weights)
        p = torch.ones(1, device=weights.device) if choice is None else choice.probabilities(context)
        cost = weights @ costs @ p
        total = cost if total is None else total + cost
    assert total is not None, "a network has layers"
    return total


def entropies(net: QuantNet, context: Context) -> dict[str, float]:
    """Entropy in bits of every searchable choice, by operand name (``LAYER.weight``, ``LAYER.input``)."""
    return {
        name: float(-(p * torch.log2(p.clamp(min=1e-12))).sum())
        for name, _, p in strength_table(net, context)
        if len(p) > 1
    }


def strength_table(net: QuantNet, context: Context) -> list[tuple[str, tuple[int, ...], Tensor]]:
    """(operand, candidates, probabilities) of every choice; a shared input goes by its first reader."""
    rows = []
    seen: set[int] = set()
    for node in net.weighted():
        rows.append((f"{node.name}.weight", node.choice.candidates, node.choice.probabilities(context).detach().cpu()))
        choice = net.source_choice(node)
        if choice is not None and id(choice) not in seen:
            seen.add(id(choice))
            rows.append((f"{node.name}.input", choice.candidates, choice.probabilities(context).detach().cpu()))
    return rows


# -------------------------------------------------------------------------------- the budget
@dataclass(frozen=True)
class Chosen:
    """An assignment. table_cost: by the table. cost: of the assembled program.

    nearness: "window": at most 1 % of the budget is left; "proven": more is left, and the solver has seen that no assignment
    is nearer; "neighbours": more is left, and no change of one group of layers is nearer (programs cannot be enumerated);
    "engine": the bits are near the budget on the engine before, and this one is faster at them (joint search).
    """

    bits: Bits
    table_cost: int
    cost: int
    nearness: str


class _Programs:
    """What the program of an assignment costs; each is assembled once. More than any budget where it does not fit."""

    def __init__(self, layers: Sequence[Group], program: Callable[[Bits], int]) -> None:
        self._layers, self._program = layers, program
        self._known: dict[tuple[tuple[int, int], ...], int] = {}

    def __call__(self, chosen: Sequence[Option]) -> int:
        bits = as_bits(self._layers, chosen)
        key = tuple(bits.values())
        if key not in self._known:
            try:
                self._known[key] = self._program(bits)
            except InputError:
                self._known[key] = _NO_PROGRAM
        return self._known[key]


def check_reach(layers: Sequence[Group], budget: int, program: Callable[[Bits], int], unit: str = "") -> None:
    """Whether the cheapest assignment's program is within the budget.

    Raises:
        InputError: it is not, or it does not fit the engine; the message says what can be reached.
    """
    least, most = extremes(layers)
    lowest = program(as_bits(layers, least))
    if lowest > budget:
        highest = _Programs(layers, program)(most)
        raise out_of_reach(budget, lowest, sum(o.cost for o in most) if highest == _NO_PROGRAM else highest, unit)


def discretise(
    layers: Sequence[Group], budget: int, table: Table, program: Callable[[Bits], int], unit: str = ""
) -> Chosen:
    """A likely assignment whose program costs at most ``budget`` and, where one is found, at least 99 % of it.

    The knapsack runs on the table; the table's budget is moved by what the program costs beside it until the program's
    own cost lies in the window. Where none does, single layers are changed as long as that gets nearer from below.

    Raises:
        InputError: the cheapest program is above the budget; the message says what can be reached.
    """
    check_reach(layers, budget, program, unit)
    cost_of = _Programs(layers, program)
    least, most = extremes(layers)
    knapsack = Knapsack(layers, max(int(1.5 * budget), sum(item.cost for item in least)))
    lowest = ceil((1 - WINDOW) * budget)
    inside: dict[tuple[tuple[int, int], ...], list[Option]] = {}
    below: list[Option] = least
    offset = cost_of(least) - sum(item.cost for item in least)
    tried: set[int] = set()
    moved = {offset}  # what programs cost beside the table
    for _ in range(_ROUNDS):  # an offset once tried is moved down, so that this ends elsewhere each time
        tried.add(offset)
        found = knapsack.best(lowest - offset, budget - offset) or knapsack.nearest(budget - offset)
        cost = cost_of(found)
        moved.add(cost - sum(item.cost for item in found))
        if cost <= budget and cost > cost_of(below):
            below = found
        if lowest <= cost <= budget:
            inside[tuple(as_bits(layers, found).values())] = found
            if len(inside) >= 4:
                break
            offset -= max((budget - cost) // 2, 1)  # a likelier one may lie nearer to the budget
        elif cost < _NO_PROGRAM:
            offset = cost - sum(item.cost for item in found)
        while offset in tried:
            offset += max(budget // 1000, 1)
    if inside:
        best = max(inside.values(), key=lambda way: sum(item.score for item in way))
    else:
        best = _climb(layers, below, budget, lowest, cost_of)
    bits = as_bits(layers, best)
    table_cost, cost = total_cost(bits, table), cost_of(best)
    proven = best == most or (knapsack.exact and moved == {0})
    return Chosen(bits, table_cost, cost, "window" if cost >= lowest else "proven" if proven else "neighbours")


def _climb(
    layers: Sequence[Group], start: list[Option], budget: int, lowest: int, cost_of: Callable[[Sequence[Option]], int]
) -> list[Option]:
    """From an assignment below the budget, change one group at a time as long as the program gets nearer to it."""
    best, cost, left = start, cost_of(start), _NEIGHBOURS
    every = [options(group) for group in layers]
    while cost < lowest and left > 0:
        moves = [
            (option.cost - best[at].cost, [*best[:at], option, *best[at + 1 :]])
            for at, choices in enumerate(every)
            for option in choices
            if option.cost > best[at].cost
        ]
        moves.sort(key=lambda move: abs(budget - cost - move[0]))
        for _, way in moves:
            left -= 1
            if cost < (found := cost_of(way)) <= budget:
                best, cost = way, found
                break
            if left <= 0:
                break
        else:
            break
    return best
