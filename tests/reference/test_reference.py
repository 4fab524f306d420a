"""The pages of ``docs/reference`` against the code.

After a change of the code, write them anew: ``make reference``, or ``WRITE_GOLDEN=1 pytest`` this
file.
"""

from __future__ import annotations

import ast
import os
import re

import pytest

from tests.reference import error_sources, markdown, message_templates, pages
from tests.reference.message_templates import Scope

_LINK = re.compile(r"\]\(([^)#]*)(#[^)]*)?\)")


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    file = pages.FOLDER / name
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(pages.write(name))

    assert file.read_text() == pages.write(name), "write the pages anew: make reference"


@pytest.mark.parametrize("name", pages.PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = (pages.FOLDER / name).read_text()
    for target, anchor in _LINK.findall(text):
        file = (pages.FOLDER / (target or name)).resolve()
        assert file.is_file(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            assert anchor[1:] in {markdown.anchor(one) for one in headings}, f"{name}: {anchor}"


def test_every_page_is_in_the_index() -> None:
    index = (pages.FOLDER / "README.md").read_text()
    there = {file.name for file in pages.FOLDER.iterdir()} - {"README.md"}

    assert there == {*pages.PAGES}
    assert there == {target for target, _ in _LINK.findall(index) if not target.startswith("..")}


def test_every_code_that_the_source_writes_is_found() -> None:
    """By another way than the extraction's: a code is a string constant after ``code=``."""
    written = {
        node.value.value
        for tree in error_sources._trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "code"
        and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }  # fmt: skip

    assert len(written) > 200
    assert written <= {one.code for one in error_sources.find_all()}


def test_every_error_has_a_hint() -> None:
    """Every way that an error is raised says how to fix it."""
    without = {
        f"{one.module}: {one.code}: {one.message}"
        for one in error_sources.find_all()
        if one.hint in {"", "None"}
    }

    assert not without


_MODULE = "tasks.training.training_request"


@pytest.mark.parametrize(
    ("expression", "template"),
    [
        ("f'{len(found)} are given; at most {MOST_DATASETS} are allowed.'",
         "N are given; at most 10 are allowed."),
        ("f'There is no {name[:60]!r} at {dataset.uri}.'", "There is no 'NAME' at URI."),
        ("f'Known are: {\", \".join(known)}.'", "Known are: KNOWN, ..."),
        ("f'It must end in {\" or \".join(RUNNERS)}.'", "It must end in .py or .sh."),
        ("f'{count} run' + 's' * (count > 1)", "COUNT run(s)"),
        ("f'It has {n} GPU{\"s\" if n else \"\"}'", "It has N GPU(s)"),
        ("f'{path} cannot be read: {error.strerror}.'", "PATH cannot be read: REASON."),
    ],
)  # fmt: skip
def test_a_message_is_a_template(expression: str, template: str) -> None:
    node = ast.parse(expression, mode="eval").body

    assert message_templates.variants((node, Scope(_MODULE))) == [(template,)]


def test_conditions_of_message_and_hint_go_together() -> None:
    message, hint = (
        ast.parse(text, mode="eval").body
        for text in ("'It is old.' if old else 'It is new.'", "'Renew it.' if old else 'Wait.'")
    )
    scope = Scope(_MODULE)

    assert message_templates.variants((message, scope), (hint, scope)) == [
        ("It is old.", "Renew it."), ("It is new.", "Wait."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("EM_DATASET_<NAME> and 2**63", r"EM_DATASET_&lt;NAME> and 2\*\*63"),
        ("`a*b` in [x]", r"`a*b` in \[x]"),
    ],
)
def test_text_is_escaped(given: str, written: str) -> None:
    assert markdown.text(given) == written


def test_a_docstring_is_read_by_its_sections() -> None:
    found = markdown.parse(
        "Do it.\n\nMore of ``it``.\n\nArgs:\n    name: Its name,\n        with more.\n"
        "    **more: Others.\n\nReturns:\n    A list.\n\nRaises:\n    NotFoundError: If missing."
    )

    assert (found.summary, found.paragraphs) == ("Do it.", ["More of `it`."])
    assert found.sections == {
        "Args": [("name", "Its name, with more."), ("**more", "Others.")],
        "Returns": [("", "A list.")],
        "Raises": [("NotFoundError", "If missing.")],
    }
