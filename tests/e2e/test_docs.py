"""Every example of README and the docs is run as written, those of most pages in a soak only.

In a soak the pages share one home, in the order in which README lists them, as for a reader who
does them all. But in a soak, tunings end after three trials, and nobody sleeps for long.
"""

import itertools
import json
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
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JOINING = "|&;<>"
HERE_DOCUMENT = re.compile(r"<<-?'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def linked(page):
    return [(page.parent / target).resolve() for target in LINK.findall(page.read_text())]


PAGES = [README, *dict.fromkeys(one for one in linked(README) if one.suffix == ".md")]


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


def run(page, stack, folder):
    """Run a page's examples in ``folder``, made into a checkout that they may write to."""
    for one in ROOT.iterdir():
        if one.name != "build":
            (folder / one.name).symlink_to(one)
    binaries = Path(sys.executable).parent
    env = {**stack.env, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    for language, written in examples(page):
        code = written if _AS_WRITTEN else shorter(written)
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.e2e
def test_the_readme_runs_as_written(spare, tmp_path):
    run(README, spare, tmp_path)
    written = (tmp_path / "build" / "predictions" / "scans.jsonl").read_text()
    assert [json.loads(line)["row"] for line in written.splitlines()] == [*range(100)]
    check_life(spare, tmp_path)


def check_life(stack, folder):
    """The tuned version is the champion by the rule, and what predicts."""
    first, second = stack.do("model", "aliases", "digits-life", "--alias", "champion")
    assert (first["to"], second["from"], second["to"]) == (1, 1, 2)
    assert second["gate"]["passed"]
    manifest = json.loads(
        (folder / "build" / "life" / "predictions" / "manifest.json").read_text()
    )
    assert (manifest["model"], manifest["predicted"]) == ("models:/digits-life/2", 100)


@pytest.mark.e2e
@pytest.mark.soak
@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda p: p.stem)
def test_pages_run_as_written_one_after_another_in_one_home(page, bare_home, tmp_path):
    run(page, bare_home, tmp_path)
    bare_home.do("down")
    assert not bare_home.processes()


def test_every_page_is_linked_from_the_readme():
    assert {*PAGES} >= {*(ROOT / "docs").glob("*.md")}


def test_no_name_is_made_twice():
    made = [name for page in PAGES for name in names_made_by(page)]
    assert len(made) > 20
    assert len(made) == len({*made})


MAKING = {("run", "train"), ("run", "tune"), ("runs", "copy")}
NAMED = {(noun, verb) for noun in ("experiment", "model", "schedule", "template")
         for verb in ("create", "copy")}  # fmt: skip


def names_made_by(page):
    """Each noun and name that the page's shell examples make."""
    for words in commands(page, {"sh"}):
        noun, verb, *rest = [*words, "", ""]
        if (noun, verb) in MAKING:
            yield from (("run", one) for one in rest if one.startswith("name="))
        elif (noun, verb) in NAMED:
            place = 1 if verb == "copy" else 0
            yield from ((noun, one) for one in rest[place : place + 1] if one[:1] not in {"", "-"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in linked(page):
        assert target.exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_take_what_they_are_given(page):
    for words in commands(page):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


def commands(page, languages=frozenset({"sh", "console"})):
    """The words of each call of ``modelyard`` in the page's examples."""
    for language, code in BLOCK.findall(page.read_text()):
        if language not in languages:
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
