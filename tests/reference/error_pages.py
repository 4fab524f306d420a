"""The page of the errors: every code, what it says, and how to mend it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.reference import error_sources, markdown
from tests.reference.error_sources import RaisedError

# Titles, and the modules whose errors are below them: the longest path that fits counts.
_GENERAL = "Codes of the classes"
_GROUPS: dict[str, tuple[str, ...]] = {
    _GENERAL: (),
    "The command and its parameters": (
        "modelyard", "tasks/parameters.py", "registry/names.py", "registry/deployments.py",
        "flows/submission.py", "tasks/flow_requests.py",
    ),
    "The stack": (
        "infra", "infra/stack", "infra/door", "flows", "modelyard/commands/access.py",
        "modelyard/pages/servers.py", "modelyard/connecting.py", "registry/catalogue.py",
    ),
    "Training": ("tasks", "infra/gpus.py", "infra/instance_types.py", "infra/site.py"),
    "Tuning": ("tasks/tuning", "tasks/trials", "tuning", "flows/tuning.py"),
    "Katib": ("tuning/katib",),
    "Runs": ("registry", "registry/runs", "registry/tunings", "flows/run_handle.py",
             "modelyard/commands/runs.py", "modelyard/commands/tensorboard.py"),
    "Experiments and templates": (
        "registry/experiments.py", "registry/experiment_names.py", "registry/tracking.py",
        "registry/training_templates.py", "tasks/training/training_templates.py",
    ),
    "Models": (
        "registry/models", "registry/frameworks", "registry/flavors", "modelyard/api/models.py",
        "modelyard/commands/model.py",
    ),
    "Serving": ("serving", "modelyard/commands/serve.py"),
    "Schedules": ("schedules", "registry/schedules", "flows/scheduling.py"),
    "Pipelines": (
        "pipelines", "registry/pipelines", "tasks/pipelines", "flows/pipelines.py",
        "flows/pipeline_run.py", "flows/pipeline_cleanup.py", "modelyard/commands/pipeline.py",
        "modelyard/commands/pipeline_graph.py",
    ),
    "Components and their environments": ("infra/workloads",),
    "Storage and secrets": (
        "infra/storage", "infra/secrets.py", "registry/storage_accesses.py",
        "modelyard/secret_input.py", "modelyard/pages/downloads.py", "tasks/outputs.py",
    ),
    "Notifications": ("registry/notifications", "modelyard/commands/notify.py"),
    "Kubernetes": ("infra/kubernetes", "infra/work_pools.py", "modelyard/kubernetes_worker.py",
                   "flows/placing.py", "tasks/placement.py"),
}  # fmt: skip
_INTRODUCTION = """\
# Errors

An error has a `code`, a `message` and a `hint`. The code is stable, for programs; message and hint
are for people and may change. Words in capitals stand for values, `N` for a number. Nothing is
started or changed by a request that is refused.
"""
_PLACES = {
    "a command": "`CODE MESSAGE` and the hint on standard error; exit status 1",
    "a command with `--json`": '`{"error": {"code": ..., "message": ..., "hint": ...}}` on '
    "standard output; exit status 1",
    "Python": "an exception with the attributes `code`, `message` and `hint`, of one of the "
    "[classes](#classes) below",
    "a form of Prefect's UI, a schedule": "a run in the state [CREATE FAILED](states.md#runs), "
    "whose message begins with the code",
    "a run that failed": "code and message in the state's message; `error_code` in "
    "`modelyard runs show --json`",
}
_STATUSES = {
    "0": "What was asked for was done; with `--watch`, and for `call`, `pipeline run` and "
    "`runs watch`, the run is COMPLETE.",
    "1": "An error with a code of this page; or the run has ended in another state.",
    "2": "The command line is wrong: [`Usage`](#usage).",
    "130": "Interrupted with Ctrl-C. A run that was started in its pool continues.",
    "141": "The reader of the output has closed it, such as `head`.",
}
_CLASSES = """\
## Classes

In Python: `from modelyard import ModelyardError, NotFoundError`. An error without a code of its
own has its class's.
"""


def write() -> str:
    """Write the page."""
    by_code: dict[str, list[RaisedError]] = defaultdict(list)
    for one in error_sources.find_all():
        by_code[one.code].append(one)
    general = {one.code for one in error_sources.public_families().values()}
    groups: dict[str, list[str]] = {title: [] for title in _GROUPS}
    for code, found in sorted(by_code.items(), key=lambda item: item[0].lower()):
        groups[_GENERAL if code in general else _group(found[0].module)].append(code)
    lines = [
        _INTRODUCTION,
        *markdown.table(("Where", "What an error looks like"), _PLACES.items()),
    ]
    lines += ["## Exit statuses", "", *markdown.table(("Status", "Meaning"), _STATUSES.items())]
    lines += [_CLASSES, *_classes(), "## Contents", ""]
    lines += [f"- [{title}](#{markdown.anchor(title)})" for title in groups] + [""]
    for title, codes in groups.items():
        lines += [f"## {title}", ""]
        for code in codes:
            lines += _entry(code, by_code[code])
    return "\n".join(lines)


def _group(module: str) -> str:
    fitting = [
        (len(prefix), title) for title, prefixes in _GROUPS.items() for prefix in prefixes
        if f"{module}/".startswith(f"{prefix}/")
    ]  # fmt: skip
    return max(fitting)[1]


def _classes() -> Iterator[str]:
    public = sorted(error_sources.public_families().items())
    rows = (
        (
            markdown.code(name),
            markdown.code(one.code),
            markdown.text(markdown.docstring(one).summary),
        )
        for name, one in public
    )
    return markdown.table(("Class", "Code", "Meaning"), rows)


def _entry(code: str, found: list[RaisedError]) -> Iterator[str]:
    families = dict.fromkeys(one.family for one in found)
    texts = list(dict.fromkeys((one.message, one.hint) for one in found))
    yield from (f"### {code}", "")
    summary = _own_summary(code, families)
    if summary:
        yield from (summary, "")
    hints = {hint for _, hint in texts}
    if len(texts) == 1:
        yield markdown.text(texts[0][0])
    elif len(hints) == 1:
        yield from (f"- {markdown.text(message)}" for message, _ in texts)
    else:
        yield from (_item(message, hint) for message, hint in texts)
    yield ""
    if len(hints) == 1 and any(hints):
        yield from (f"*Fix:* {markdown.text(hints.pop())}", "")


def _item(message: str, hint: str) -> str:
    shown = f"- {markdown.text(message)}"
    return f"{shown}\\\n  *Fix:* {markdown.text(hint)}" if hint else shown


def _own_summary(code: str, families: dict[str, None]) -> str:
    """What a code means by the docstring of a class of its own."""
    owners = [error_sources.family(name) for name in families]
    return next(
        (markdown.text(markdown.docstring(one).summary) for one in owners if one.code == code), ""
    )
