"""The search's side of training: temperature, budget pressure, figures, and the choice of bits at its end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwgen.engine import EngineConfig
from hwgen.errors import InputError
from hwgen.network import Network
from model import choose, dnas
from model.assign import Group, Knapsack, as_bits, extremes, most_likely, total_cost
from model.choose import Bits, plain_context
from model.cost import Cost, Cycles, Table
from model.discretise import WINDOW, Chosen, check_reach, discretise
from model.export import export
from model.nodes import Context
from model.quantnet import QuantNet
from model.recipe import Recipe
from model.refine import Refined, refine

_log = logging.getLogger(__name__)
_JOINT_ROUNDS = 4  # of engine and bits at the end of a joint search
_TRIAL_STREAM = 78
_ABOUT = 0.1  # of the budget: uniform bits so far from it still come near it with a few changes


@dataclass(frozen=True)
class Measures:
    """What training tells of its network as it is, on held-out images and before it is retrained.

    accuracy: with batch norm's statistics of its bits. loss: of bits that change from call to call. retrained_loss: after an epoch
    of retraining, which leaves no trace, infinite where it diverges. progress: (stage, done, total) while several are tried.
    """

    accuracy: Callable[[], float]
    loss: Callable[[], float]
    retrained_loss: Callable[[], float]
    progress: Callable[[str, int, int], None]


class Search:
    """How a run chooses its bits.

    Args:
        reference: an untrained network of the same shape; its bits are set to ask what an assignment costs.
        budget: most that the assembled program of the chosen bits may cost.
    """

    def __init__(self, recipe: Recipe, reference: QuantNet, cost: Cost, budget: int) -> None:
        self.recipe, self.reference, self.cost, self.budget = recipe, reference, cost, budget
        self.table: Table = cost.table(self.network(self._all(4)))
        self.offset = 0  # what programs cost beside the table
        self._programs: dict[tuple[tuple[str, tuple[int, int]], ...], int] = {}  # what they cost on the engine of now

    def _all(self, bits: int) -> Bits:
        return choose.uniform_bits(self.reference, bits, bits)

    # ---------------------------------------------------------------- costs
    def network(self, bits: Mapping[str, tuple[int, int]]) -> Network:
        """The untrained integer network at given bits."""
        choose.fix_bits(self.reference, bits)
        return export(self.reference, proven=False)

    def program(self, bits: Mapping[str, tuple[int, int]]) -> int:
        """Cost of the assembled program at given bits.

        Raises:
            InputError: it does not fit the engine.
        """
        key = tuple(sorted(bits.items()))
        if key not in self._programs:
            self._programs[key] = self.cost.total(self.network(bits))
        return self._programs[key]

    def check(self, net: QuantNet) -> None:
        """Whether any assignment meets the budget.

        Raises:
            InputError: the cheapest program is above it; the message says what can be reached.
        """
        check_reach(self._scored(net, 1.0), self.budget, self.program, self.cost.unit)

    def cheapest(self, net: QuantNet) -> Bits:
        """Of what may be chosen, what the table says is the cheapest."""
        if self.recipe.search.method == "uniform":
            return choose.uniform_bits(net, *self.recipe.search.uniform)
        return as_bits(layers := self._scored(net, 1.0), extremes(layers)[0])

    # ---------------------------------------------------------------- while training
    @property
    def trains(self) -> bool:
        """Whether the method has strengths to train."""
        return self.recipe.search.method not in ("uniform", "random")

    @property
    def warm(self) -> int:
        """Epochs that train the weights alone."""
        return ceil(self.recipe.search.warm * self.recipe.search.epochs)

    def check_epochs(self, net: QuantNet) -> None:
        """Whether bits would be chosen by strengths that have been trained.

        Raises:
            InputError: there are some, and no epoch that trains them.
        """
        search = self.recipe.search
        if self.trains and net.strengths() and self.warm >= search.epochs:
            raise InputError(
                f"'search.epochs': of {search.epochs} epochs, 'search.warm' = {search.warm} trains the weights alone in"
                f" {self.warm} (rounded up), which leaves none for the strengths that the bits are chosen by; raise"
                " search.epochs, or lower search.warm.",
                "recipe",
            )

    @property
    def _refines(self) -> bool:
        """Whether assignments are compared with the search's weights: only those that samples have trained are used to fixed
        bits. A joint search has chosen its engine for the bits that it has."""
        search = self.recipe.search
        return search.method == "ebs-sto" and search.trials > 0 and not search.joint

    @property
    def last(self) -> float:
        """The last temperature."""
        return self.recipe.search.temperature[1]

    def temperature(self, epoch: int, total: int) -> float:
        """From the first to the last temperature, geometrically."""
        first, last = self.recipe.search.temperature
        return float(first * (last / first) ** (epoch / max(total - 1, 1)))

    def prepare_epoch(self, net: QuantNet, epoch: int, total: int, temperature: float) -> None:
        """Choose the engine's shape anew where the recipe says so, and see what programs now cost beside the table."""
        joint = self.recipe.search.joint
        with torch.no_grad():
            if joint and epoch in {total * at // (joint + 1) for at in range(1, joint + 1)}:
                self._adapt(self._discretise(net, temperature).bits)
            layers = self._scored(net, temperature)
        knapsack = Knapsack(layers, max(self.budget * 2, total_cost(as_bits(layers, extremes(layers)[0]), self.table)))
        bits = as_bits(layers, knapsack.best(0, self.budget - self.offset) or knapsack.nearest(self.budget - self.offset))
        self.offset = self.program(bits) - total_cost(bits, self.table)

    def _plain(self, temperature: float) -> Context:
        """The context of probabilities without noise. With Gumbel noise candidates win by softmax(strengths), whatever the
        temperature: that says how near a sample comes to one of them."""
        return plain_context(1.0 if self.recipe.search.method == "ebs-sto" else temperature)

    def _expected_cost(self, net: QuantNet, context: Context) -> Tensor:
        """Of the program, 0-dim."""
        return choose.expected_cost(net, self.table, context) + self.offset

    def allowed(self, net: QuantNet, done: float) -> float:
        """What the cost term lets bits cost once ``done`` of the strengths' training is over, 0 to 1.

        It falls to the budget: where it lies there at once, the cost alone decides the first steps, and since Adam steps all
        strengths alike, those fall too that save little and lose much.
        """
        if done >= self.recipe.search.descent:
            return float(self.budget)
        with torch.no_grad():
            mean = float(self._expected_cost(net, plain_context(math.inf)))
        return self.budget + (1.0 - done / self.recipe.search.descent) * max(mean - self.budget, 0.0)

    def pressure(self, net: QuantNet, temperature: float, allowed: float) -> Tensor:
        """The cost term: how far the expected cost is above what is allowed, as a share of it, weighted."""
        cost = self._expected_cost(net, self._plain(temperature))
        return self.recipe.search.cost_weight * F.relu(cost / allowed - 1.0)

    def figures(self, net: QuantNet, temperature: float) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """(expected cost and mean entropy in bits, probabilities by operand and bits) after an epoch."""
        context = self._plain(temperature)
        with torch.no_grad():
            entropy = list(choose.entropies(net, context).values())
            found = {
                "expected_cost": float(self._expected_cost(net, context)),
                "entropy": sum(entropy) / max(len(entropy), 1),
            }
            table = choose.strength_table(net, context)
            return found, {
                name: {str(b): value for b, value in zip(bits, p.tolist(), strict=True)}
                for name, bits, p in table
                if len(bits) > 1
            }

    # ---------------------------------------------------------------- the choice
    def _scored(self, net: QuantNet, temperature: float) -> list[Group]:
        with torch.no_grad():
            if self.recipe.search.method == "random":
                return choose.random_groups(net, self.table, self.recipe.seed)
            return choose.groups(net, self.table, self._plain(temperature))

    def _discretise(self, net: QuantNet, temperature: float) -> Chosen:
        return self._discretised(self._scored(net, temperature))

    def _discretised(self, layers: list[Group]) -> Chosen:
        return discretise(
            layers,
            self.budget,
            self.table,
            self.program,
            self.cost.unit,
            additive=self.cost.additive,
        )

    def _adapt(self, bits: Bits) -> bool:
        if not self.cost.adapt(self.network(bits)):
            return False
        self._programs.clear()
        self.table = self.cost.table(self.network(self._all(4)))
        return True

    def _alternate(self, net: QuantNet, chosen: Chosen) -> Chosen:
        """Engine and bits in turn until the engine stays; where they go round in circles, the engine for the last bits."""
        for _ in range(_JOINT_ROUNDS):
            if not self._adapt(chosen.bits):
                return chosen
            chosen = self._discretise(net, self.last)
        if not self._adapt(chosen.bits):
            return chosen
        table_cost = total_cost(chosen.bits, self.table)
        return Chosen(chosen.bits, table_cost, self.program(chosen.bits), "engine")

    def choose(self, net: QuantNet, measures: Measures) -> tuple[Bits, dict[str, Any]]:
        """The bits, which ``net`` is set to, and what is to be known about them."""
        if self.recipe.search.method == "uniform":
            bits = choose.uniform_bits(net, *self.recipe.search.uniform)
            facts: dict[str, Any] = {}
        elif not self.trains:
            chosen = self._discretise(net, self.last)
            bits, facts = chosen.bits, {"nearness": chosen.nearness}
        else:
            bits, facts = self._choose_by_strengths(net, measures)
        facts |= {"final_table_cost": total_cost(bits, self.table), "program_cost": self.program(bits)}
        facts["table_difference"] = facts["program_cost"] - facts["final_table_cost"]
        self.cost.settle(self.network(bits))
        if self.trains:
            _log.info(
                "the program costs %d of %d%s (%s)", facts["program_cost"], self.budget, self.cost.unit, facts["nearness"]
            )
            facts["chosen_accuracy"] = self._at(net, bits, measures.accuracy)
        dnas.collapse(net, bits)
        choose.fix_bits(net, bits)
        return bits, facts

    def _choose_by_strengths(self, net: QuantNet, measures: Measures) -> tuple[Bits, dict[str, Any]]:
        with torch.no_grad():
            expected = float(self._expected_cost(net, self._plain(self.last)))
        facts: dict[str, Any] = {"expected_cost": expected, "mixed_accuracy": measures.accuracy()}
        chosen = self._discretise(net, self.last)
        if self.recipe.search.joint:
            chosen = self._alternate(net, chosen)
        layers = self._scored(net, self.last)
        likely = as_bits(layers, most_likely(layers))
        facts["arg_max_cost"] = total_cost(likely, self.table)
        facts["arg_max_accuracy"] = self._at(net, likely, measures.accuracy)
        facts["nearness"] = chosen.nearness
        bits = chosen.bits
        ranked: tuple[Bits, ...] = ()
        near = chosen.nearness == "window"  # else nothing is as near to the budget
        uniform = self._uniform(net) if near and (self._refines or self._has_finals) else []
        if self._refines and near:
            refined = self._refine(net, layers, bits, uniform, measures)
            bits = refined.bits
            _log.info(
                "%d assignments tried: held-out loss %.4f of the likeliest, %.4f of the chosen one",
                refined.tried, refined.first, refined.loss,
            )  # fmt: skip
            facts |= {"likeliest_loss": refined.first, "chosen_loss": refined.loss, "tried": refined.tried}
            if refined.others is not None:
                facts["uniform_loss"] = refined.others
            ranked = refined.ranked
        if self._has_finals and near:
            bits, losses = self._finals(net, [bits, chosen.bits, *ranked], uniform, measures)
            facts["final_losses"] = [loss if math.isfinite(loss) else None for loss in losses]  # JSON has no infinity
        return bits, facts

    @property
    def _has_finals(self) -> bool:
        """A supernet has a weight for each candidate, and a joint search has chosen its engine for the bits that it has."""
        search = self.recipe.search
        return search.finals > 1 and search.method in ("ebs-det", "ebs-sto") and not search.joint

    def _finals(
        self, net: QuantNet, ranked: Sequence[Bits], uniform: Sequence[Bits], measures: Measures
    ) -> tuple[Bits, list[float]]:
        """Of the most promising assignments, the one of the least loss after an epoch of retraining; the losses, the first of
        ``ranked`` first.

        Strengths and trials go by weights that have been trained for the bits that the search has favoured. So the assignment of
        the least noise and uniform bits take part whatever these say.
        """
        even = self._discretised(choose.even_groups(net, self.table))
        blind = [*([even.bits] if even.nearness == "window" else []), *uniform]
        pool: list[Bits] = []
        for bits in [*ranked[:2], *blind, *ranked[2:]]:
            if bits not in pool and len(pool) < self.recipe.search.finals:
                pool.append(bits)
        losses = []
        for at, bits in enumerate(pool, 1):
            losses.append(self._at(net, bits, measures.retrained_loss))
            _log.info("held-out loss %.4f after an epoch of retraining at %s", losses[-1], bits)
            measures.progress("retraining finalists", at, len(pool))
        return pool[min(range(len(pool)), key=losses.__getitem__)], losses

    def _uniform(self, net: QuantNet) -> list[Bits]:
        """Uniform bits near the budget, with a few operands' bits changed until they cost as much; the least noise first."""
        asked, found = self.recipe.search, []
        pairs = product(asked.weight_bits, asked.activation_bits)
        for weight, activation in sorted(pairs, key=lambda pair: sum(map(choose.rounding_noise, pair))):
            bits = choose.uniform_bits(net, weight, activation)
            if abs(total_cost(bits, self.table) + self.offset - self.budget) > _ABOUT * self.budget:
                continue
            if self._in_window(bits):
                found.append(bits)
                continue
            nearest = self._discretised(choose.near_groups(net, self.table, weight, activation))
            found += [nearest.bits] if nearest.nearness == "window" else []
        return found

    @property
    def _lowest(self) -> int:
        """The least cost that is near the budget."""
        return ceil((1 - WINDOW) * self.budget)

    def _in_window(self, bits: Bits) -> bool:
        """Whether the program costs as much as the budget, or up to 1 % less."""
        try:
            return self._lowest <= self.program(bits) <= self.budget
        except InputError:
            return False

    def _refine(
        self, net: QuantNet, layers: list[Group], start: Bits, uniform: Sequence[Bits], measures: Measures
    ) -> Refined:
        """The best on held-out images of the likeliest bits, uniform ones, and those around the best so far."""
        lowest, beside = self._lowest, self.program(start) - total_cost(start, self.table)
        slack = 0 if self.cost.additive else WINDOW * self.budget  # farther off by the table: not assembled

        def near(bits: Bits) -> bool:
            return lowest - slack <= total_cost(bits, self.table) + beside <= self.budget + slack

        def fits(bits: Bits) -> bool:
            return self.cost.additive or self._in_window(bits)

        rng = np.random.default_rng([self.recipe.seed, _TRIAL_STREAM])
        return refine(
            layers, start, uniform, self.recipe.search.trials, near, fits, lambda bits: self._at(net, bits, measures.loss), rng,
            partial(measures.progress, "trying bits"),
        )  # fmt: skip

    def _at(self, net: QuantNet, bits: Bits, measure: Callable[[], float]) -> float:
        """A measure at given bits; the candidates are mixed again after."""
        copies = dnas.borrow(net, bits)
        choose.fix_bits(net, bits)
        found = measure()
        dnas.give_back(net, copies)
        choose.free_bits(net)
        return found

    # ---------------------------------------------------------------- checkpoints
    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        engine = dict(self.cost.engine.__dict__) if isinstance(self.cost, Cycles) else {}
        return {"engine": engine, "offset": self.offset, "budget": self.budget}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.offset, self.budget = int(state["offset"]), int(state["budget"])
        if isinstance(self.cost, Cycles) and state["engine"]:
            engine = EngineConfig(**state["engine"])
            if engine != self.cost.engine:
                self.cost.engine = engine
                self._programs.clear()
                self.table = self.cost.table(self.network(self._all(4)))
