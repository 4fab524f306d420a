from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.drawing import building
from pipelines.drawing.layout import HEIGHT, WIDTH, layout
from pipelines.drawing.model import Box
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import (
    check,
    edges_of,
    flat,
    group,
    random_tree,
    read,
    task,
    whole,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60))
def test_no_boxes_overlap_and_edges_point_downward(seed: int, tasks: int) -> None:
    root = random_tree(seed, tasks)

    check(root, layout(root))


def test_the_whole_corpus_can_be_placed() -> None:
    for name in corpus.NAMES:
        root = building.draw(read(name))
        check(root, layout(root))


def test_it_is_the_same_each_time() -> None:
    root = random_tree(7, 40)

    assert layout(root) == layout(random_tree(7, 40))


def test_many_that_depend_on_the_same_are_a_block() -> None:
    waits = {"first": [], **{f"w{n}": ["first"] for n in range(200)}}
    waits["last"] = [f"w{n}" for n in range(200)]
    root = building.draw(flat(waits))
    placed = layout(root)

    check(root, placed)
    assert len(placed.blocks) == 1
    assert len(placed.routes) == 2
    assert placed.width < 20 * WIDTH


def test_few_that_depend_on_the_same_stand_side_by_side() -> None:
    root = whole(*map(task, "abcd"), edges="a>b a>c a>d")
    placed = layout(root)

    assert placed.blocks == []
    assert len({placed.rects[name].y for name in "bcd"}) == 1


def test_200_deep_is_a_line() -> None:
    waits = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(200)}
    root = building.draw(flat(waits))
    placed = layout(root)

    check(root, placed)
    assert placed.width == WIDTH
    assert placed.height >= 200 * HEIGHT


def test_groups_deep_within_groups_can_be_placed() -> None:
    box = task("x", "/".join(f"g{n}" for n in range(40)))
    for depth in reversed(range(40)):
        path = "/".join(f"g{n}" for n in range(depth + 1))
        box = Box(path, f"g{depth}", "dag", group=True, children=(box,))
    root = whole(box)

    check(root, layout(root))


def test_what_has_nothing_to_do_with_each_other_stands_apart() -> None:
    tall = group("tall", *"abcdefgh", edges="a>b b>c c>d d>e e>f f>g g>h")
    root = whole(tall, task("one"), task("two"), edges="one>two")
    rects = layout(root).rects

    assert rects["two"].y - rects["one"].y < 2 * HEIGHT + 60  # the tall one makes no way longer


def test_equal_boxes_fill_their_lines_evenly() -> None:
    root = whole(*(group(f"g{n}", "a") for n in range(4)))
    lines = {rect.y for path, rect in layout(root).rects.items() if "/" not in path}

    assert len(lines) in {1, 2}
    assert len(lines) == 1 or len({layout(root).rects[f"g{n}"].x for n in range(4)}) == 2


def test_a_group_is_as_wide_as_its_name_needs_up_to_a_limit() -> None:
    short, long = layout(whole(group("g", "a"))), layout(whole(group("g" * 40, "a")))
    longest = layout(whole(group("g" * 4000, "a")))

    assert short.width < long.width == longest.width < 3 * WIDTH


def test_an_empty_graph_and_an_empty_group_can_be_placed() -> None:
    assert layout(whole()).width == 0
    root = whole(group("g"), task("a"), edges="g>a")
    check(root, layout(root))
    assert edges_of("") == ()
