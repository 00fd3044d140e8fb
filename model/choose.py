"""From strengths to bits: the candidates of a network's layers, their probabilities, and what they are expected to cost."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from math import exp

import numpy as np
import torch
from torch import Tensor

from hwgen.errors import InputError
from model.assign import Group, Layer
from model.cost import Table
from model.nodes import Choice, Context, Mode, WeightedNode
from model.quantnet import QuantNet
from model.settings import LayerRule

Bits = dict[str, tuple[int, int]]
_Score = Callable[[Sequence[int]], tuple[float, ...]]  # of candidates
_NOISE = 100.0  # exp(-25) at one bit: no score is cut off
_FAR = 3.0  # exp(-21) at seven bits: nor is any here


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
    """The same bits everywhere but where an operand has one candidate (the image, pinned layers) or a rule of its own: there
    the nearest that is allowed."""

    def pick(choice: Choice, bits: int) -> int:
        if len(choice.candidates) == 1 or choice.ruled:
            return min(choice.candidates, key=lambda candidate: (abs(candidate - bits), candidate))
        return max(bits, choice.least)

    bits = {}
    for node in net.weighted():
        source = net.source_choice(node)
        bits[node.name] = (pick(node.choice, weight), net.input_bits if source is None else pick(source, activation))
    return bits


def bit_rows(bits: Bits, table: Table | None = None) -> list[dict[str, str | int]]:
    """The bits of each layer as files and reports have them, and with a table what they cost."""
    rows: list[dict[str, str | int]] = []
    for name, (weight, given) in bits.items():
        rows.append({"layer": name, "weight": weight, "activation": given})
        if table is not None:
            rows[-1]["cost"] = int(table[name][weight - 1, given - 1])
    return rows


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
    return _scored(net, table, lambda bits: tuple(rng.uniform(1e-6, 1.0, len(bits)).tolist()))


def rounding_noise(bits: int) -> float:
    """Power of a quantiser's rounding noise, in units of that at no bits: one bit less makes its step twice as wide."""
    return float(0.25**bits)


def even_groups(net: QuantNet, table: Table) -> list[Group]:
    """The groups with scores by the bits alone. One bit less makes a quantiser's step twice as wide and the power of its noise
    four times as large: the likeliest assignment is the one of the least noise, all operands counted alike."""
    return _scored(net, table, lambda bits: tuple(exp(-_NOISE * rounding_noise(item)) for item in bits))


def near_groups(net: QuantNet, table: Table, weight: int, activation: int) -> list[Group]:
    """The groups with scores by how far bits are from the given ones: the likeliest assignment differs the least from uniform
    bits."""

    def near(wanted: int) -> _Score:
        return lambda bits: tuple(exp(-_FAR * abs(item - wanted)) for item in bits)

    return _scored(net, table, near(weight), near(activation))


def _scored(net: QuantNet, table: Table, weights: _Score, inputs: _Score | None = None) -> list[Group]:
    """The groups, each choice with the scores that ``weights``, or of a tensor ``inputs``, gives its candidates."""
    inputs = inputs or weights
    return [
        Group(group.activation_bits, inputs(group.activation_bits),
              tuple(Layer(layer.name, layer.weight_bits, weights(layer.weight_bits), layer.cost) for layer in group.layers))
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
