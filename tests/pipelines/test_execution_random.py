"""Random pipelines end as a naive interpreter says; more of them with MODELYARD_SEEDS."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.errors import ModelyardError
from tests.pipelines import engine
from tests.pipelines.engine import ITEM, OUT, Dag, Given, Node, Of, Status, Threads, Work

_SEEDS = 60 * int(os.environ.get("MODELYARD_SEEDS", "1"))
_BROKEN = {"FAILED", "OMITTED"}
_FINAL = {"SUCCEEDED": "SUCCEEDED", "SKIPPED": "SUCCEEDED", "CANCELLED": "CANCELLED"}
_PICKED = "inputs.parameter_values['pick'] == 'yes'"


class Builder:
    """Makes random pipelines."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.size = 0

    def dag(self, depth: int, given: tuple[str, ...]) -> Dag:
        tasks: dict[str, Node] = {}
        for number in range(self.chance.randint(1, 6 if depth < 2 else 3)):
            name = f"{self.chance.choice('abcxyz')}{number}"
            tasks[name] = self.node(depth, tasks, given)
        outputs: dict[str, Of | tuple[Of, ...]] = {}
        for number, (name, node) in enumerate(tasks.items()):
            made = self.made(node)
            if made and self.chance.random() < 0.6:
                outputs[f"o{number}"] = Of(name, self.chance.choice(made))
        alternatives = [
            Of(name, self.chance.choice(self.made(node)))
            for name, node in tasks.items()
            if node.condition and self.made(node)
        ]
        if len(alternatives) > 1:
            outputs["one"] = tuple(alternatives)
        return Dag(tasks, outputs)

    def made(self, node: Node) -> list[str]:
        return [OUT] if node.runs is None else list(node.runs.outputs)

    def node(self, depth: int, before: Mapping[str, Node], given: tuple[str, ...]) -> Node:
        self.size += 1
        chance = self.chance
        node = Node(regardless=chance.random() < 0.15)
        if before:
            node.after = tuple(
                chance.sample(sorted(before), chance.randint(0, min(2, len(before))))
            )
        for number in range(chance.randint(0, 2)):
            node.inputs[f"i{number}"] = self.value(before, given)
            if chance.random() < 0.3:
                node.defaults[f"i{number}"] = chance.choice(["default", None])
        if chance.random() < 0.3:
            node.inputs["pick"] = chance.choice(["yes", "yes", "no"])
            node.condition = _PICKED
        if node.regardless and before:
            node.inputs["status"] = Status(chance.choice(sorted(before)))
        if chance.random() < 0.25:
            node.over = [f"item{number}" for number in range(chance.randint(0, 3))]
            node.limit = chance.randint(0, 2)
        handed = (*node.inputs, *((ITEM,) if node.over is not None else ()))
        if depth < 3 and self.size < 40 and chance.random() < 0.35:
            node.runs = self.dag(depth + 1, handed)
        node.retries = chance.choice([0, 0, 0, 1, 2])
        return node

    def value(self, before: Mapping[str, Node], given: tuple[str, ...]) -> Any:
        of = [Of(name, made) for name, node in before.items() for made in self.made(node)]
        return self.chance.choice(["constant", *(Given(name) for name in given), *of * 3])


@dataclass
class Ended:
    state: str
    outputs: dict[str, Any] = field(default_factory=dict)


class Absent(Exception):
    """An input that is not there."""


class Naive:
    """Runs the tasks of a pipeline one after another, as a person would."""

    def __init__(self, does: Any) -> None:
        self.does = does
        self.states: dict[str, str] = {}

    def dag(self, dag: Dag, given: Mapping[str, Any], path: str) -> Ended:
        ends: dict[str, Ended] = {}
        for name, node in dag.tasks.items():  # each task waits for earlier ones only
            where = f"{path}/{name}" if path else name
            ends[name] = self.task(node, given, ends, where)
            self.states[where] = ends[name].state
        if any(end.state in _BROKEN for end in ends.values()):
            return Ended("FAILED")
        outputs = {}
        for key, chosen in dag.outputs.items():
            if isinstance(chosen, Of):
                if chosen.output in ends[chosen.task].outputs:
                    outputs[key] = ends[chosen.task].outputs[chosen.output]
                continue
            there = [ends[one.task].outputs[one.output] for one in chosen
                     if one.output in ends[one.task].outputs]  # fmt: skip
            if not there:
                return Ended("FAILED")
            outputs[key] = there[0]
        return Ended("SUCCEEDED", outputs)

    def task(
        self, node: Node, given: Mapping[str, Any], ends: dict[str, Ended], path: str
    ) -> Ended:
        named = [value.task for value in node.inputs.values() if isinstance(value, Of | Status)]
        before = [ends[name] for name in {*node.after, *named}]
        if not node.regardless and any(end.state in _BROKEN for end in before):
            return Ended("OMITTED")
        try:
            inputs = {key: self.input(node, key, given, ends) for key in node.inputs}
        except Absent:
            skipped = any(end.state == "SKIPPED" for end in before)
            return Ended("SKIPPED" if skipped else "FAILED")
        inputs = {key: value for key, value in inputs.items() if value is not None}
        if node.condition and inputs["pick"] != "yes":
            return Ended("SKIPPED")
        attempts = node.retries + 1 if node.runs is not None else 1
        for _ in range(attempts):
            end = self.once(node, inputs, path)
            if end.state == "SUCCEEDED":
                break
        return end

    def input(self, node: Node, key: str, given: Any, ends: dict[str, Ended]) -> Any:
        value = node.inputs[key]
        if isinstance(value, Of):
            value = ends[value.task].outputs.get(value.output)
        elif isinstance(value, Given):
            value = given.get(value.name)
        elif isinstance(value, Status):
            return _FINAL.get(ends[value.task].state, "FAILED")
        if value is None and key not in node.defaults:
            raise Absent
        return node.defaults[key] if value is None else value

    def once(self, node: Node, inputs: dict[str, Any], path: str) -> Ended:
        if node.over is None:
            return self.run(node, inputs, path)
        each = []
        for number, item in enumerate(node.over):
            each.append(self.run(node, {**inputs, ITEM: item}, f"{path}/{number}"))
            self.states[f"{path}/{number}"] = each[-1].state
        if any(end.state in _BROKEN for end in each):
            return Ended("FAILED")
        names = [OUT] if node.runs is None else node.runs.outputs
        collected = {name: [end.outputs[name] for end in each if name in end.outputs]
                     for name in names}  # fmt: skip
        return Ended("SUCCEEDED", collected)

    def run(self, node: Node, inputs: dict[str, Any], path: str) -> Ended:
        if node.runs is not None:
            return self.dag(node.runs, inputs, path)
        for attempt in range(1, node.retries + 2):
            try:
                return Ended("SUCCEEDED", {OUT: self.does(path, inputs, attempt)})
            except ModelyardError:
                continue
        return Ended("FAILED")


def does_of(seed: int) -> Any:
    """What leaves do: some fail, some of these at their first attempt alone."""

    def does(path: str, inputs: Mapping[str, Any], attempt: int) -> Any:
        luck = random.Random(f"{seed} {path}").random()
        if luck < 0.08 or (luck < 0.2 and attempt == 1):
            raise ModelyardError(f"{path} broke.", code="Broke")
        return f"{path}({', '.join(f'{key}={inputs[key]}' for key in sorted(inputs))})"

    return does


def leaf_does(seed: int) -> engine.Does:
    does = does_of(seed)

    def of(leaf: Any) -> Any:
        given = leaf.inputs.parameters
        words = {key: value["state"] if isinstance(value, dict) else value
                 for key, value in given.items()}  # fmt: skip
        return does(leaf.path, words, leaf.attempt)

    return of


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_it_ends_as_the_naive_interpreter_says(seed: int) -> None:
    dag = Builder(random.Random(seed)).dag(0, ())
    naive = Naive(does_of(seed))
    expected = naive.dag(dag, {}, "")

    parallel = 1 + seed % 5
    for work in (Work(leaf_does(seed)), Threads(leaf_does(seed))):
        end = engine.execute(dag, work, parallel=parallel)
        states = {path: state for path, state in work.states.items() if path}
        assert states == naive.states
        assert (str(end.state), dict(end.outputs.parameters)) == (
            expected.state, expected.outputs,
        )  # fmt: skip
        assert not isinstance(work, Threads) or work.most <= parallel
