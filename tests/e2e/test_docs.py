"""Every example of the README and the docs is run as written, those of most pages in a soak only.

All pages share a stack: a page begins where no experiment or run is called as its own, but not
without what other pages made. But in a soak, tunings end after three trials, and nobody sleeps for
long.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from modelyard import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICKSTART = ROOT / "docs" / "quickstart.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JOINING = "|&;<>"
HERE_DOCUMENT = re.compile(r"<<-?'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def examples(page):
    return [(language, code) for language, code in BLOCK.findall(page.read_text())
            if language in {"sh", "python"}]  # fmt: skip


_SHORTER = [
    (
        re.compile(r"^(modelyard run tune (?!.*max_trials).*)$", re.MULTILINE),
        r"\1 -p max_trials=3",
    ),
    (re.compile(r"^sleep \d+$", re.MULTILINE), "sleep 12"),
]
_AS_WRITTEN = bool(os.environ.get("MODELYARD_SOAK"))


def shorter(code):
    for pattern, replacement in _SHORTER:
        code = pattern.sub(replacement, code)
    return code


def run(page, stack):
    binaries = Path(sys.executable).parent
    env = {**stack.env, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    for language, written in examples(page):
        code = written if _AS_WRITTEN else shorter(written)
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


LASTING = [
    pytest.param(page, marks=() if page.name == "README.md" else pytest.mark.soak, id=page.name)
    for page in PAGES
    if examples(page) and page != QUICKSTART
]


@pytest.mark.e2e
@pytest.mark.parametrize("page", LASTING)
def test_examples_run_as_written(page, spare):
    run(page, spare)
    rename(spare, "experiment", "name", page, spare.do("experiment", "list"))
    rename(spare, "runs", "id", page, spare.do("runs", "list", "-n", "200"))


def rename(stack, noun, key, page, rows):
    """Leave the names to the next page."""
    for row in rows:
        if row["name"] != "Default" and "," not in row["name"]:
            # Not of a run whose experiment the page has deleted.
            stack.ask(noun, "update", row[key], "--name", f"{row['name']}, {page.stem}")


@pytest.mark.e2e
@pytest.mark.soak
def test_the_quickstart_ends_with_nothing_that_runs(bare_home):
    run(QUICKSTART, bare_home)
    assert not bare_home.processes()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_take_what_they_are_given(page):
    for words in commands(page):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


def commands(page):
    """The words of each call of ``modelyard`` in the page's examples."""
    for language, code in BLOCK.findall(page.read_text()):
        if language not in {"sh", "console"}:
            continue
        whole = HERE_DOCUMENT.sub("", code.replace("\\\n", " "))
        for line in whole.splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            lexer = shlex.shlex(
                line.removeprefix("$ "), posix=True, punctuation_chars="".join(JOINING)
            )
            lexer.whitespace_split = True
            for separates, found in itertools.groupby(
                lexer, lambda word: set(word) <= set("|&;<>")
            ):
                words = list(found)
                if not separates and words[0] == "modelyard":
                    yield words[1:]


def parse(words):
    """Read the words as the command does, without doing anything."""
    command, context = main.cli, None
    while True:
        context = command.make_context(command.name, words, parent=context)
        if not isinstance(command, click.Group):
            return
        _, command, words = command.resolve_command(context, context.args)
