"""SVG renderer of a graph: for a page, or as a standalone file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape

from pipelines.drawing import layout, model, style, text, words
from pipelines.drawing.layers import Point
from pipelines.drawing.layout import GraphLayout, Rect
from pipelines.drawing.model import Box, Edge

_MARGIN = 20.0
_TIP = 7.0  # the length of an arrow's tip
_RADIUS = 8.0
_NAME, _SAID = 13.0, 11.5
_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML
_LINES = {ord("\n"): "&#10;", ord("\r"): "&#13;", ord("\t"): "&#9;"}


def write(
    root: Box,
    *,
    now: float,
    link: Callable[[str], str] | None = None,
    chosen: str | None = None,
) -> str:
    """Render a graph as an ``svg`` element.

    Args:
        root: The graph.
        now: Seconds since 1970, for how long it has run what runs.
        link: The address of the page of a node, by its path. Without it the element is a
            document of its own, with its style in it.
        chosen: The path of a node that stands out.
    """
    return _Writer(root, layout.layout(root), now, link, chosen).whole()


class _Writer:
    def __init__(
        self,
        root: Box,
        placed: GraphLayout,
        now: float,
        link: Callable[[str], str] | None,
        chosen: str | None,
    ) -> None:
        self._root = root
        self._placed = placed
        self._now = now
        self._link = link
        self._chosen = chosen
        self._parts: list[str] = []
        self._routes: dict[str, list[tuple[Edge, list[Point]]]] = {}
        for edge, points in placed.routes:
            group = edge.target.rpartition("/")[0]
            self._routes.setdefault(group, []).append((edge, points))

    def whole(self) -> str:
        width = self._placed.width + 2 * _MARGIN
        height = self._placed.height + 2 * _MARGIN
        kind = words.KINDS[self._root.kind]
        label = _attribute(f"{kind} {self._root.name}")
        size = f'width="{_number(width)}" height="{_number(height)}"'
        role = "img" if self._link is None else "group"
        self._parts.append(
            f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" role="{role}" '
            f'aria-label="{label}" {size} viewBox="0 0 {_number(width)} {_number(height)}">'
        )
        self._parts.append(f"<title>{_content(self._root.name)}</title>")
        if self._link is None:
            self._parts.append(f"<style>{style.SHEET}</style>")
        self._parts.append(f'<g transform="translate({_number(_MARGIN)} {_number(_MARGIN)})">')
        for block in self._placed.blocks:
            self._parts.append(f'<rect class="block" {_rect(block)} rx="12"/>')
        self._inside(self._root)
        self._parts.append("</g></svg>")
        return "".join(self._parts)

    def _inside(self, group: Box) -> None:
        calls = words.labels(group)
        for edge, points in self._routes.get(group.path, ()):
            self._edge(edge, points, calls)
        for child in group.children:
            rect = self._placed.rects[child.path]
            if child.group:
                self._frame(child, rect)
                self._inside(child)
            else:
                self._card(child, rect)

    def _edge(self, edge: Edge, points: list[Point], calls: Mapping[str, str]) -> None:
        x, y = points[-1]
        points = [*points[:-1], (x, y - _TIP + 1)]
        source, target = calls[edge.source], calls[edge.target]
        caption = f"{source} → {target}" + (f": {', '.join(edge.carried)}" if edge.carried else "")
        half = _TIP / 2
        tip = (
            f"M{_number(x)} {_number(y)}L{_number(x - half)} {_number(y - _TIP)}"
            f"L{_number(x + half)} {_number(y - _TIP)}z"
        )
        self._parts.append(
            f'<g><title>{_content(caption)}</title><path class="edge {edge.kind}" '
            f'd="{_curve(points)}"/><path class="tip" d="{tip}"/></g>'
        )

    # Boxes

    def _open(self, box: Box, kind: str) -> None:
        named = [kind, f"k-{box.kind}"]
        if box.state in style.STATES:
            named.append(f"s-{box.state.lower()}")
        if self._chosen is not None and box.path == self._chosen:
            named.append("chosen")
        self._parts.append(f'<g class="{" ".join(named)}">')

    def _linked(self, box: Box) -> str:
        """Open a link to a node, and return its closing tag."""
        if self._link is None:
            return ""
        path = box.path.removesuffix("/*") if box.kind == model.MORE else box.path
        address, label = (
            _attribute(self._link(path)),
            _attribute(words.describe_box(box, self._now)),
        )
        self._parts.append(
            f'<a href="{address}" data-path="{_attribute(path)}" aria-label="{label}">'
        )
        return "</a>"

    def _card(self, box: Box, rect: Rect) -> None:
        self._open(box, "box")
        closing = self._linked(box)
        x, y = rect.x, rect.y
        self._parts.append(f"<title>{_content(words.describe_box(box, self._now))}</title>")
        self._parts.append(f'<rect class="card" {_rect(rect)} rx="{_number(_RADIUS)}"/>')
        if box.state in style.STATES:
            self._parts.append(f'<path class="bar" d="{_bar(rect)}"/>')
            self._state_icon(box.state, x + 24, y + rect.height / 2)
        else:
            self._kind_icon(box.kind, x + 24, y + rect.height / 2)
        room = rect.width - 56
        name = text.shorten(box.name, _NAME, room)
        self._parts.append(
            f'<text class="name" x="{_number(x + 44)}" y="{_number(y + 23)}">'
            f"{_content(name)}</text>"
        )
        self._second_line(box, x + 44, y + 41, room)
        self._parts.append(f"{closing}</g>")

    def _second_line(self, box: Box, x: float, y: float, room: float) -> None:
        at = f'x="{_number(x)}" y="{_number(y)}"'
        if box.state:
            self._parts.append(f'<text class="state" {at}>{self._standing(box)[1]}</text>')
            return
        if box.kind == model.MORE:
            caption = words.format_counts(box.counts)
        else:
            caption = box.runs or words.KINDS[box.kind]
            caption = f"{words.KINDS[box.kind]} · {caption}" if box.kind == model.EXIT else caption
        self._parts.append(
            f'<text class="said" {at}>{_content(text.shorten(caption, _SAID, room))}</text>'
        )

    def _standing(self, box: Box) -> tuple[str, str]:
        """How a box stands and for how long: the text, and the content of a text element."""
        caption = words.state(box.state) + (f" · attempt {box.attempt}" if box.attempt > 1 else "")
        seconds = box.seconds(self._now)
        if seconds is None:
            return caption, _content(caption)
        span = text.duration(seconds)
        ticking = "" if box.ended else f' data-began="{box.began:.3f}"'
        shown = f"{_content(caption)} · <tspan{ticking}>{span}</tspan>"
        return f"{caption} · {span}", shown

    def _frame(self, box: Box, rect: Rect) -> None:
        self._open(box, "frame")
        self._parts.append(f'<rect class="pane" {_rect(rect)} rx="10"/>')
        closing = self._linked(box)
        self._parts.append(f"<title>{_content(words.describe_box(box, self._now))}</title>")
        room = Rect(rect.x, rect.y, rect.width, layout.head(box))
        self._parts.append(f'<rect class="hit" {_rect(room)} rx="10"/>')
        self._kind_icon(box.kind, rect.x + 20, rect.y + 18)
        left = rect.width - 36 - 14
        if box.state in style.STATES:
            said, shown = self._standing(box)
            left -= text.width(said, _SAID) + 10
            self._parts.append(
                f'<text class="state" text-anchor="end" x="{_number(rect.x + rect.width - 14)}" '
                f'y="{_number(rect.y + 22)}">{shown}</text>'
            )
        name = text.shorten(box.name, _NAME, max(left, 40))
        self._parts.append(
            f'<text class="name" x="{_number(rect.x + 36)}" y="{_number(rect.y + 22.5)}">'
            f"{_content(name)}</text>"
        )
        if layout.has_note(box):
            caption = text.shorten(words.format_note(box), _SAID, rect.width - 28)
            self._parts.append(
                f'<text class="note" x="{_number(rect.x + 14)}" y="{_number(rect.y + 40)}">'
                f"{_content(caption)}</text>"
            )
        self._parts.append(f"{closing}</g>")

    def _state_icon(self, state: str, x: float, y: float) -> None:
        look = style.STATES[state]
        self._parts.append(f'<circle class="dot" cx="{_number(x)}" cy="{_number(y)}" r="9"/>')
        drawn = "full" if look.filled else "line"
        self._icon(drawn, look.icon, x, y)

    def _kind_icon(self, kind: str, x: float, y: float) -> None:
        self._icon("kind", style.KIND_ICONS.get(kind, ""), x, y)

    def _icon(self, drawn: str, path: str, x: float, y: float) -> None:
        place = f"translate({_number(x - 8)} {_number(y - 8)})"
        self._parts.append(f'<path class="{drawn}" transform="{place}" d="{path}"/>')


def _curve(points: list[Point]) -> str:
    x, y = points[0]
    drawn = [f"M{_number(x)} {_number(y)}"]
    for to_x, to_y in points[1:]:
        if abs(to_x - x) < 0.05:
            drawn.append(f"V{_number(to_y)}")
        else:
            middle = (y + to_y) / 2
            drawn.append(
                f"C{_number(x)} {_number(middle)} {_number(to_x)} {_number(middle)} "
                f"{_number(to_x)} {_number(to_y)}"
            )
        x, y = to_x, to_y
    return "".join(drawn)


def _bar(rect: Rect) -> str:
    """Coloured left side of a card."""
    x, y, radius, width = rect.x, rect.y, _RADIUS, 5.0
    inner = rect.height - 2 * radius
    return (
        f"M{_number(x + radius)} {_number(y)}a{_number(radius)} {_number(radius)} 0 0 0 "
        f"{_number(-radius)} {_number(radius)}v{_number(inner)}a{_number(radius)} "
        f"{_number(radius)} 0 0 0 {_number(radius)} {_number(radius)}"
        f"h{_number(width - radius)}v{_number(-rect.height)}z"
    )


def _rect(rect: Rect) -> str:
    return (
        f'x="{_number(rect.x)}" y="{_number(rect.y)}" width="{_number(rect.width)}" '
        f'height="{_number(rect.height)}"'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _content(caption: str) -> str:
    return escape(text.plain(caption), quote=False)


def _attribute(caption: str) -> str:
    """As the value of an attribute, which may have to be found again as it is."""
    return escape(_ILLEGAL.sub("", caption)).translate(_LINES)
