"""Style of a graph: colours, icons and words of states, in a light and a dark scheme."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.drawing import model
from pipelines.states import TaskState


@dataclass(frozen=True)
class StateStyle:
    """Style of a state.

    Attributes:
        word: Its display name.
        symbol: Its symbol in a terminal.
        light: Its colour on white.
        dark: Its colour on black.
        icon: A path in a square of 16, which is drawn in a circle of the colour.
        filled: Whether the icon is filled instead of drawn with a line.
    """

    word: str
    symbol: str
    light: str
    dark: str
    icon: str
    filled: bool = False


STATES = {
    str(TaskState.WAITING): StateStyle(
        "Waiting", "◌", "#6e7781", "#8b949e", "M4.6 8h.01M8 8h.01M11.4 8h.01"
    ),
    str(TaskState.RUNNING): StateStyle(
        "Running", "▶", "#0969da", "#4c9aff", "M6.2 4.7v6.6L11.4 8z", filled=True
    ),
    str(TaskState.SUCCEEDED): StateStyle(
        "Succeeded", "✓", "#1a7f37", "#3fb950", "M4.6 8.4l2.3 2.4 4.5-5.3"
    ),
    str(TaskState.CACHED): StateStyle(
        "Cached", "↯", "#0e7490", "#22b8cf", "M9.2 3.2L4.8 8.9h2.6l-.7 3.9 4.5-5.9H8.5z",
        filled=True,
    ),
    str(TaskState.SKIPPED): StateStyle("Skipped", "-", "#6e7781", "#8b949e", "M4.8 8h6.4"),
    str(TaskState.FAILED): StateStyle(
        "Failed", "✗", "#cf222e", "#f85149", "M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6"
    ),
    str(TaskState.OMITTED): StateStyle("Omitted", "⊘", "#9a6700", "#d29922", "M5.2 10.8l5.6-5.6"),
    str(TaskState.CANCELLED): StateStyle(
        "Cancelled", "■", "#8250df", "#a371f7", "M5.4 5.4h5.2v5.2H5.4z", filled=True
    ),
}  # fmt: skip

KIND_ICONS = {
    model.TASK: "M4.5 4.8L7.7 8l-3.2 3.2M8.8 11.2h3",
    model.IMPORTER: "M8 3.4v6M5.4 7L8 9.6 10.6 7M3.8 12.4h8.4",
    model.EXIT: "M9.2 3.6h3.4v8.8H9.2M3.4 8h6M7 5.6L9.4 8 7 10.4",
    model.DAG: "M6 3h4v3H6zM2.6 10h4v3h-4zM9.4 10h4v3h-4zM8 6v2M4.6 10V8h6.8v2",
    model.CONDITION: "M8 2.8L13.2 8 8 13.2 2.8 8z",
    model.LOOP: "M12.4 8a4.4 4.4 0 1 1-1.3-3.1M12.6 3v2.6H10",
    model.ITERATION: "M5.4 8a2.6 2.6 0 1 0 5.2 0 2.6 2.6 0 1 0-5.2 0",
    model.MORE: "M4.6 8h.01M8 8h.01M11.4 8h.01",
}

# name: light, dark
_COLOURS = {
    "surface": ("#ffffff", "#1c2128"),
    "line": ("#d0d7de", "#444c56"),
    "text": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9198a1"),
    "edge": ("#8c959f", "#6e7681"),
    "frame": ("#57606a", "#9198a1"),
    "icon": ("#ffffff", "#0d1117"),
    "failed": ("#fff1f0", "#2d1a1c"),
    "chosen": ("#0969da", "#4c9aff"),
}


def _rules(at: int) -> str:
    """CSS rules that differ between light and dark."""
    found = {name: both[at] for name, both in _COLOURS.items()}
    rules = [
        f".graph text{{fill:{found['text']}}}",
        f".graph .said,.graph .note{{fill:{found['muted']}}}",
        f".graph .card{{fill:{found['surface']};stroke:{found['line']}}}",
        f".graph .pane{{fill:{found['frame']};stroke:{found['frame']}}}",
        f".graph .edge{{stroke:{found['edge']}}}",
        f".graph .tip{{fill:{found['edge']}}}",
        f".graph .block{{stroke:{found['edge']}}}",
        f".graph .kind{{stroke:{found['muted']}}}",
        f".graph .s-failed .card{{fill:{found['failed']}}}",
        f".graph a:hover .card,.graph a:focus .card{{stroke:{found['chosen']}}}",
        f".graph .chosen>.card,.graph .chosen>a>.card{{stroke:{found['chosen']}}}",
        f".graph .chosen>.pane{{stroke:{found['chosen']}}}",
        f".graph .line{{stroke:{found['icon']}}}",
        f".graph .full{{fill:{found['icon']}}}",
    ]
    for state, look in STATES.items():
        colour = look.dark if at else look.light
        name = f"s-{state.lower()}"
        rules.append(f".graph .{name}>.dot,.graph .{name}>a>.dot{{fill:{colour}}}")
        rules.append(f".graph .{name}>.state,.graph .{name}>a>.state{{fill:{colour}}}")
        rules.append(f".graph .{name}>.bar,.graph .{name}>a>.bar{{fill:{colour}}}")
    return "".join(rules)


SHEET = (
    ".graph{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}"
    ".graph a{text-decoration:none;outline:none}"
    ".graph .name{font-size:13px;font-weight:600}"
    ".graph .said,.graph .state,.graph .note{font-size:11.5px}"
    ".graph .state{font-weight:500}"
    ".graph .card{stroke-width:1}"
    ".graph .s-running .card{stroke-width:1.5}"
    ".graph .s-skipped .card,.graph .s-omitted .card{stroke-dasharray:4 3}"
    ".graph .s-skipped .name,.graph .s-omitted .name,.graph .s-waiting .name{opacity:.72}"
    ".graph .pane{fill-opacity:.05;stroke-opacity:.38}"
    ".graph .chosen>.card,.graph .chosen>a>.card{stroke-width:2.5}"
    ".graph .chosen>.pane{stroke-width:2;stroke-opacity:1}"
    ".graph .edge{fill:none;stroke-width:1.4}"
    ".graph .order{stroke-dasharray:5 4}"
    ".graph .artifact{stroke-width:2}"
    ".graph .block{fill:none;stroke-dasharray:2 4;stroke-opacity:.8}"
    ".graph .kind,.graph .line{fill:none;stroke-width:1.6;stroke-linecap:round;"
    "stroke-linejoin:round}"
    ".graph .line{stroke-width:1.9}"
    ".graph .hit{fill:transparent}"
    + _rules(0)
    + f"@media (prefers-color-scheme:dark){{{_rules(1)}}}"
    + "@media (prefers-reduced-motion:no-preference){"
    "@keyframes graph-runs{50%{opacity:.45}}"
    ".graph .s-running>.dot,.graph .s-running>a>.dot"
    "{animation:graph-runs 1.6s ease-in-out infinite}}"
)
