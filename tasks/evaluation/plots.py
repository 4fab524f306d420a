"""Interactive plots of an evaluation: pages of their own that need no other file.

Each is an SVG whose points say their values under the pointer, and whose lines can be switched
off in the legend, which MLflow shows among a run's artifacts.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from itertools import chain, starmap
from typing import Any

from registry.evaluation_results import ROC, EvaluationCurvesView
from tasks.evaluation import curve_lines
from tasks.evaluation.curve_lines import PlotLine

# Colours that differ for the colour blind (Okabe and Ito), and dashes where they repeat.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f6873")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_SIDE, _LEFT, _TOP = 460, 64, 16

_STYLE = """
body { font: 15px system-ui, sans-serif; color: #24292f; background: #fff; margin: 1.5rem; }
svg { width: 100%; max-width: 620px; height: auto; } h1 { font-size: 1.2rem; }
text { font: 13px system-ui, sans-serif; fill: #5f6873; } #read { min-height: 1.5em; }
label { display: inline-block; margin: 0 1rem 0.3rem 0; } .grid { stroke: #e6e9ed; }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
table { border-collapse: collapse; } th, td { padding: 0.3rem 0.6rem; text-align: right; }
i { display: inline-block; width: 1.2rem; border-top: 3px solid; vertical-align: middle; }
"""

_SCRIPT = """
const lines = JSON.parse(document.getElementById('lines').textContent);
const svg = document.querySelector('svg'), read = document.getElementById('read');
const mark = document.getElementById('mark');
document.querySelectorAll('input').forEach((box, at) => box.addEventListener('change', () => {
  lines[at].hidden = !box.checked;
  document.getElementById('line-' + at).style.display = box.checked ? '' : 'none';
}));
svg.addEventListener('pointermove', event => {
  const matrix = svg.getScreenCTM().inverse();
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
  let best = null, least = 900;
  for (const line of lines) if (!line.hidden) line.points.forEach((point, number) => {
    const far = (point[0] - at.x) ** 2 + (point[1] - at.y) ** 2;
    if (far < least) { least = far; best = [line, number]; }
  });
  mark.style.display = best ? '' : 'none';
  if (!best) { read.textContent = ''; return; }
  const point = best[0].points[best[1]];
  mark.setAttribute('cx', point[0]); mark.setAttribute('cy', point[1]);
  read.textContent = best[0].name + ': ' + best[0].texts[best[1]];
});
"""


def plots(result: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, str]:
    """The plots of a classification as HTML by file name; none of a regression.

    Args:
        result: The content of ``result.json``.
        curves: The content of ``curves.json``; empty without probabilities.
    """
    found = {}
    if "confusion_matrix" in result:
        found["confusion-matrix.html"] = _matrix(result["confusion_matrix"])
    classes = EvaluationCurvesView.model_validate(curves).classes
    if classes:
        found[ROC] = draw(
            "ROC curves",
            "false positive rate",
            "recall",
            starmap(curve_lines.roc, classes.items()),
        )
        found["precision-recall.html"] = draw(
            "Precision-recall curves", "recall", "precision",
            starmap(curve_lines.precision_recall, classes.items()),
        )  # fmt: skip
        lines = chain.from_iterable(starmap(curve_lines.by_threshold, classes.items()))
        found["thresholds.html"] = draw(
            "Precision and recall by threshold", "threshold", "precision, recall", lines
        )
    return found


def draw(title: str, x_title: str, y_title: str, lines: Iterable[PlotLine]) -> str:
    """A plot of lines between 0 and 1, as a page."""
    shown, legend, data = [], [], []
    for at, line in enumerate(lines):
        colour = _COLOURS[at % len(_COLOURS)]
        dash = _DASHES[at // len(_COLOURS) % len(_DASHES)]
        points = [
            (round(_LEFT + _SIDE * x, 1), round(_TOP + _SIDE * (1 - y), 1))
            for x, y in zip(line.x, line.y, strict=True)
        ]
        path = " ".join(f"{x},{y}" for x, y in points)
        shown.append(
            f'<polyline id="line-{at}" points="{path}" stroke="{colour}" '
            f'stroke-dasharray="{dash}"/>'
        )
        legend.append(
            f'<label><input type="checkbox" checked> <i style="border-color:{colour}"></i> '
            f"{html.escape(line.name)}</label>"
        )
        data.append({"name": line.name, "points": points, "texts": list(line.texts)})
    embedded = json.dumps(data).replace("<", "\\u003c")
    return _page(
        title,
        f'<svg viewBox="0 0 {_LEFT + _SIDE + 16} {_TOP + _SIDE + 48}" role="img" '
        f'aria-label="{html.escape(title)}">{_axes(x_title, y_title)}{"".join(shown)}'
        f'<circle id="mark" r="4" style="display:none"/></svg><p id="read"></p>'
        f'<p>{"".join(legend)}</p><script type="application/json" id="lines">{embedded}</script>'
        f"<script>{_SCRIPT}</script>",
    )


def _axes(x_title: str, y_title: str) -> str:
    parts = []
    for tick in range(6):
        x, y = _LEFT + _SIDE * tick / 5, _TOP + _SIDE * (1 - tick / 5)
        bottom, right = _TOP + _SIDE, _LEFT + _SIDE
        parts += [
            f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>',
            f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>',
            f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick / 5:g}</text>',
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick / 5:g}</text>',
        ]
    middle = _TOP + _SIDE / 2
    return "".join(parts) + (
        f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 40}" text-anchor="middle">{x_title}'
        f'</text><text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">'
        f"{y_title}</text>"
    )


def _matrix(found: Mapping[str, Any]) -> str:
    """The confusion matrix: a row for each class, shaded by its share of the row."""
    names = [*found["classes"], "no class"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = []
    for name, counts in zip(found["classes"], found["counts"], strict=True):
        total = sum(counts) or 1
        cells = "".join(
            f'<td style="background:rgba(0,114,178,{0.6 * count / total:.3f})" '
            f'title="{100 * count / total:.1f} % of {html.escape(name, quote=True)}">{count}</td>'
            for count in counts
        )
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    note = "<p>Rows: the true class. Columns: the predicted one.</p>"
    table = f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    return _page("Confusion matrix", note + table)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )
