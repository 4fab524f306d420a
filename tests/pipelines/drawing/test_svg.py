from __future__ import annotations

import pytest

from pipelines.drawing import building, svg
from pipelines.drawing.layout import layout
from pipelines.drawing.style import STATES
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import (
    SVG,
    check,
    flat,
    group,
    node,
    parsed,
    read,
    task,
    texts,
    titles,
    whole,
    without_style,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"/><script>alert(1)</script>',
    "'><image href=x onerror=alert(1)>",
    "&lt;b&gt; ]]> <!-- -->",
    "nul\0 esc\x1b[0m half\ud800 none\uffff turned\u202e",
    "]]></style><script>",
    "ნ" * 3000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_written_stays_text(name: str) -> None:
    root = whole(
        group(name, name, "b", reason=name, note=name),
        task("c", reason=name, runs=name),
        name=name,
    )
    for link in (None, lambda path: f"/x?node={path}"):
        written = svg.write(root, now=0, link=link, chosen=name)
        found = parsed(written)
        tags = {element.tag.rpartition("}")[2] for element in found.iter()}
        assert tags <= {
            "svg",
            "g",
            "a",
            "title",
            "style",
            "rect",
            "path",
            "circle",
            "text",
            "tspan",
        }
        attributes = {key for element in found.iter() for key in element.attrib}
        assert not [key for key in attributes if key.startswith("on")]


def test_an_edge_of_a_hostile_name_stays_text() -> None:
    written = svg.write(building.draw(flat({"<b>": [], 'x"': ["<b>"]})), now=0)

    assert '<b> → x"' in titles(written)


def test_a_long_name_is_cut_and_told_whole() -> None:
    name = "a-very-long-name-" * 20
    written = svg.write(whole(task(name)), now=0)

    assert name not in texts(written)
    assert any(len(one) < 40 and "…" in one for one in texts(written))
    assert any(name in one for one in titles(written))


@pytest.mark.parametrize("state", sorted(STATES))
def test_a_state_is_told_by_a_word_an_icon_and_a_colour(state: str) -> None:
    written = svg.write(whole(task("a", state=state)), now=0)
    (box,) = [one for one in parsed(written).iter(f"{SVG}g") if "box" in one.get("class", "")]

    assert f"s-{state.lower()}" in box.get("class", "")
    assert STATES[state].word in texts(written)
    icons = [one.get("d") for one in box.iter(f"{SVG}path")]
    assert STATES[state].icon in icons


def test_states_differ_in_word_icon_symbol_and_colours() -> None:
    for told in ("word", "symbol", "icon"):
        assert len({getattr(look, told) for look in STATES.values()}) == len(STATES)
    alike = [state for state, look in STATES.items() if look.light == STATES["WAITING"].light]
    assert alike == ["WAITING", "SKIPPED"]  # neither has happened


def test_the_colours_of_words_can_be_read() -> None:
    for look in STATES.values():
        assert contrast(look.light, "#ffffff") >= 4.5
        assert contrast(look.dark, "#1c2128") >= 4.5


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_a_file_stands_for_itself_and_a_page_brings_its_own_style() -> None:
    root = whole(task("a"))

    assert "prefers-color-scheme" in svg.write(root, now=0)
    assert "<a" not in svg.write(root, now=0)
    assert "<style" not in svg.write(root, now=0, link=str)
    assert "style=" not in without_style(svg.write(root, now=0, link=str))


def test_each_node_links_to_its_page_and_the_chosen_one_stands_out() -> None:
    root = whole(group("g", "a"), task("b"))
    written = svg.write(root, now=0, link=lambda path: f"/x?node={path}", chosen="g/a")
    found = parsed(written)
    links = {one.get("data-path"): one.get("href") for one in found.iter(f"{SVG}a")}

    assert links == {"g": "/x?node=g", "g/a": "/x?node=g/a", "b": "/x?node=b"}
    assert written.count("chosen") == 1


def test_iterations_that_are_not_shown_lead_to_their_loop() -> None:
    rows = [node("for-loop-1", "RUNNING", "loop")]
    rows += [node(f"for-loop-1/{n}", kind="iteration") for n in range(50)]
    root = building.draw(read("nested_loops"), rows)
    written = svg.write(root, now=0, link=str)

    assert "44 more" in texts(written)
    assert [one.get("data-path") for one in parsed(written).iter(f"{SVG}a")].count(
        "for-loop-1"
    ) == 2


def test_what_runs_says_since_when() -> None:
    root = whole(
        task("a", state="RUNNING", began=100.0), task("b", state="FAILED", began=1.0, ended=3.0)
    )
    written = svg.write(root, now=103.0)

    assert 'data-began="100.000">3.0 s<' in written
    assert written.count("data-began") == 1
    assert "Failed · 2.0 s" in texts(written)


def test_the_whole_corpus_can_be_written() -> None:
    for name in corpus.NAMES:
        root = building.draw(read(name))
        written = svg.write(root, now=0)
        drawn = [one for one in parsed(written).iter(f"{SVG}rect") if one.get("class") == "card"]
        assert len(drawn) == sum(not box.group for box in root.walk())


def test_a_thousand_can_be_written() -> None:
    waits = {
        f"t{n}": [f"t{m}" for m in {n // 2, n // 3, n - 1} if 0 <= m < n] for n in range(1000)
    }
    written = svg.write(building.draw(flat(waits)), now=0)

    assert len(texts(written)) == 2000


def test_a_name_that_people_gave_is_the_label_and_the_key_is_beside_the_pointer() -> None:
    root = building.draw(read("given_names"))
    written = svg.write(root, now=0, link=lambda path: f"/x?node={path}")
    paths = {link.get("data-path") for link in parsed(written).iter(f"{SVG}a")}

    assert {"guard", "good?", "each day", "per day", "count / 세다 🎉 all"} <= set(texts(written))
    assert "exit-handler-1" not in texts(written)
    assert "each day (for-loop-3), loop. for each item of days" in titles(written)
    assert "count / 세다 🎉 all → each day: Output" in titles(written)
    assert "exit-handler-1/for-loop-3/add-2" in paths


@pytest.mark.parametrize("name", [*HOSTILE, "a/b/c", "🎉" * 500, "line\nline\r\n\tline", "/"])
def test_whatever_a_task_is_called_it_can_be_drawn(name: str) -> None:
    pipeline = flat({"a": [], "b": ["a"], "c": ["b"]})
    for key in "ab":  # both the same
        pipeline.spec.root.dag.tasks[key].task_info.name = name.replace("\ud800", "")
    root = building.draw(pipeline)
    placed = layout(root)
    written = svg.write(root, now=0, link=lambda path: f"/x?node={path}")

    check(root, placed)
    assert [link.get("data-path") for link in parsed(written).iter(f"{SVG}a")] == ["a", "b", "c"]
    assert all(len(told) < 1000 for told in titles(written))
    assert [(edge.source, edge.target) for edge in root.edges] == [("a", "b"), ("b", "c")]
