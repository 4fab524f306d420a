from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.drawing import layers, spreading

BOX = (208.0, 54.0)


def test_each_is_below_all_that_it_depends_on() -> None:
    found = layers.layers("abcd", [("a", "b"), ("b", "d"), ("a", "d"), ("c", "d")])

    assert found == {"a": 0, "b": 1, "d": 2, "c": 1}


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(ValueError, match="cycle"):
        layers.layers("abc", [("a", "b"), ("b", "c"), ("c", "b")])


def test_nothing_takes_no_room() -> None:
    placed = layers.arrange({}, [])

    assert (placed.places, placed.width, placed.height) == ({}, 0, 0)


def crossings(placed: layers.Arrangement[str], edges: list[tuple[str, str]]) -> int:
    at = {name: x for name, (x, _) in placed.places.items()}
    return sum(
        (at[a] - at[c]) * (at[b] - at[d]) < 0
        for a, b in edges
        for c, d in edges
        if (a, b) < (c, d)
    )


def test_edges_that_need_not_cross_do_not() -> None:
    edges = [("a", "z"), ("b", "y"), ("c", "x"), ("d", "w"), ("a", "y"), ("b", "x"), ("c", "w")]
    placed = layers.arrange(dict.fromkeys("abcdwxyz", BOX), edges)

    assert crossings(placed, edges) == 0


def test_a_chain_is_a_straight_line() -> None:
    names = [f"t{n}" for n in range(200)]
    placed = layers.arrange(dict.fromkeys(names, BOX), list(pairwise(names)))

    assert placed.width == BOX[0]
    assert {x for x, _ in placed.places.values()} == {0.0}
    assert [y for _, y in placed.places.values()] == sorted(y for _, y in placed.places.values())


def test_a_long_edge_goes_around_what_is_between() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c")]
    placed = layers.arrange(dict.fromkeys("abc", BOX), edges)
    left, top = placed.places["b"]

    passing = [x for x, y in placed.routes["a", "c"] if top <= y <= top + BOX[1]]
    assert passing
    assert all(x <= left or x >= left + BOX[0] for x in passing)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0, 0.5))
def test_routes_pass_no_box(seed: int, many: int, density: float) -> None:
    chance = random.Random(seed)
    sizes = {n: (chance.uniform(50, 400), chance.uniform(20, 300)) for n in range(many)}
    edges = [(a, b) for a in range(many) for b in range(a + 1, many) if chance.random() < density]
    placed = layers.arrange(sizes, edges)

    assert placed == layers.arrange(sizes, edges)
    assert set(placed.routes) == set(edges)
    for (source, target), points in placed.routes.items():
        for (x, y), (to_x, to_y) in pairwise(points):
            if x != to_x:
                continue  # between the layers, where no box is
            for name, (left, top) in placed.places.items():
                width, height = sizes[name]
                beside = x <= left + 0.01 or x >= left + width - 0.01
                assert name in {source, target} or beside or to_y <= top or y >= top + height
        assert points[0][1] == placed.places[source][1] + sizes[source][1]
        assert points[-1][1] == placed.places[target][1]


def test_more_long_edges_than_are_drawn_around_still_have_routes() -> None:
    many = 400
    chain = [(n, n + 1) for n in range(many)]
    far = [(n, many) for n in range(many - 1)]
    placed = layers.arrange(dict.fromkeys(range(many + 1), BOX), chain + far)

    assert len(placed.routes) == len(chain) + len(far)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=1, max_size=6))
def test_places_are_the_nearest_that_keep_the_distances(wishes: list[tuple[int, int]]) -> None:
    desired = [float(wish) for wish, _ in wishes]
    weights = [float(weight) for _, weight in wishes]
    distances = [10.0] * (len(wishes) - 1)
    found = spreading.spread(desired, weights, distances)

    def cost(places: list[float]) -> float:
        return sum(w * (x - d) ** 2 for x, d, w in zip(places, desired, weights, strict=True))

    gaps = [b - a for a, b in pairwise(found)]
    assert all(gap >= 9.999 for gap in gaps)
    for at in range(len(found)):  # no box, and no run of boxes, can be moved and make it better
        for end in range(at + 1, len(found) + 1):
            for step in (-0.1, 0.1):
                moved = [x + step * (at <= n < end) for n, x in enumerate(found)]
                kept = all(b - a >= 10 - 1e-9 for a, b in pairwise(moved))
                assert not kept or cost(moved) >= cost(found) - 1e-6
