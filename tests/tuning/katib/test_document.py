from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from tests.tuning.katib.written import refused, text
from tuning import katib
from tuning.katib import document


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: [", "KatibNotYaml"),
        ("a: \t- b", "KatibNotYaml"),
        ("a: \0", "KatibNotYaml"),
        ("", "KatibDocuments"),
        ("---\n---\n", "KatibDocuments"),
        (text("random") + "---\n" + text("grid"), "KatibDocuments"),
        ("- a", "KatibNotExperiment"),
        ("text", "KatibNotExperiment"),
        ("kind: Experiment", "KatibNotExperiment"),
        ("kind: Experiment\napiVersion: kubeflow.org/v1alpha3", "KatibNotExperiment"),
        ("kind: List\napiVersion: v1\nitems: []", "KatibNotExperiment"),
        ("kind: [a]\napiVersion: kubeflow.org/v1beta1", "KatibNotExperiment"),
        ("a: 1\na: 2", "KatibFieldTwice"),
        ("? [a]\n: b", "KatibFieldInvalid"),
        ("<<: 3", "KatibFieldInvalid"),
        ("a: !!python/object/apply:os.system ['exit 1']", "KatibTagForbidden"),
        ("a: !secret b", "KatibTagForbidden"),
        ("a: !!binary aGFsbG8=", "KatibTagForbidden"),
        ("a: " + "[" * 100 + "]" * 100, "KatibTooDeep"),
        ("a: " + "[" * 100_000, "KatibTooDeep"),
        ("a: &a [*a]", "KatibTooDeep"),
        ("# " + "x" * 2**20, "KatibTooLarge"),
        ("# " + "한" * 2**19, "KatibTooLarge"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(text: str, code: str) -> None:
    assert refused(text).code == code


def test_a_tag_makes_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"

    refused(f"a: !!python/object/apply:pathlib.Path.touch [{made}]")
    refused(f"a: !!python/object/apply:os.mkdir [{made}]")

    assert not made.exists()


@pytest.mark.parametrize("merge", [False, True])
def test_aliases_that_expand_are_refused_at_once(merge: bool) -> None:
    lines = ["a0: &a0 {x: y}" if merge else "a0: &a0 [x, x]"]
    for level in range(1, 40):
        before = ", ".join([f"*a{level - 1}"] * 10)
        value = f"{{<<: [{before}]}}" if merge else f"[{before}]"
        lines.append(f"a{level}: &a{level} {value}")

    assert refused("\n".join(lines)).code == "KatibAliasesExpand"


def test_aliases_and_merges_are_read() -> None:
    section = document.parse("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{x: 9}, *a]}")

    assert section.tree("b") == {"x": "1", "y": "2"}
    assert section.tree("c") == {"x": "1", "y": "3"}
    assert section.tree("d") == {"x": "9", "y": "2"}


@pytest.mark.parametrize(
    "value", ["on", "0x1f", "1_000", "12:30", "2026-01-01", "!!int abc", "1e3"]
)
def test_scalars_stay_what_was_written(value: str) -> None:
    assert document.parse(f"a: {value}").tree("a") == value.removeprefix("!!int ")


def test_nulls_and_trailing_documents_count_as_nothing() -> None:
    assert document.parse("a: ~\nb:\nc: null\n---\n").tree("a") is None


@given(st.text(max_size=60))
@hypothesis_settings(database=None, max_examples=200, deadline=None)
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        katib.read(text)
