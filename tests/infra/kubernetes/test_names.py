from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.kubernetes import names
from tests.infra.kubernetes.shapes import RUN, wanted

# "Labels and Selectors" and "Object Names and IDs" of Kubernetes' documentation.
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_NODES = 256

_ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@given(_ANY_TEXT)
@example("-" * 100)
@example("a" * 64)
@example("..")
@example("good\n")
@example("\ud800")
def test_any_text_becomes_a_valid_label(text: str) -> None:
    cleaned = names.label_value(text)

    assert _VALUE.fullmatch(cleaned)
    assert bool(cleaned) == bool(text)
    assert names.label_value(cleaned) == cleaned


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,61}[A-Za-z0-9]", fullmatch=True))
def test_a_valid_label_stays_as_it_is(text: str) -> None:
    assert names.label_value(text) == text


@given(_ANY_TEXT, _ANY_TEXT)
@example("a b", "a/b")
@example("x" * 70, "x" * 71)
@example("실험", "시험")
def test_two_names_share_no_label(one: str, other: str) -> None:
    assert (names.label_value(one) == names.label_value(other)) == (one == other)


def test_a_label_keeps_what_can_be_read_of_a_name() -> None:
    assert re.fullmatch(r"my-first-run-[0-9a-f]{8}", names.label_value("my first/run!"))
    assert re.fullmatch(r"[0-9a-f]{8}", names.label_value("실험"))


@given(st.uuids(), st.integers(1, 10**9))
def test_a_jobs_name_leaves_room_for_the_hosts_of_its_pods(run: UUID, attempt: int) -> None:
    name = names.job_name(str(run), attempt)

    assert _DNS_LABEL.fullmatch(f"{name}-{_MOST_NODES - 1}")


@given(run=_ANY_TEXT, experiment=_ANY_TEXT, slot=_ANY_TEXT, flow=_ANY_TEXT, pool=_ANY_TEXT)
def test_any_names_give_valid_labels_and_stand_whole_in_annotations(
    run: str, experiment: str, slot: str, flow: str, pool: str
) -> None:
    attempt = wanted(run_name=run, experiment=experiment, slot=slot, flow=flow, pool=pool)

    labels, annotations = names.labels(attempt), names.build_annotations(attempt)

    assert all(value and _VALUE.fullmatch(value) for value in labels.values())
    for name, text in {names.RUN: run, names.EXPERIMENT: experiment, names.SLOT: slot}.items():
        # What UTF-8 cannot say, as half a surrogate pair, is a question mark.
        assert annotations.get(name, "") == text.encode(errors="replace").decode()


def test_an_absurdly_long_name_still_makes_an_object_that_is_taken() -> None:
    annotations = names.build_annotations(
        wanted(run_name="가" * 100_000, experiment="나" * 100_000)
    )

    assert sum(len(value.encode()) for value in annotations.values()) < 256 * 1024
    assert set(annotations[names.RUN]) == {"가"}


def test_every_id_is_a_label() -> None:
    attempt = wanted(schedule="7b1c", slot="2026-01-01T00-00", attempt=3)

    assert names.labels(attempt) == {
        "app.kubernetes.io/managed-by": "modelyard",
        "modelyard/flow-run": RUN,
        "modelyard/attempt": "3",
        "modelyard/flow": "train",
        "modelyard/pool": "gpu",
        "modelyard/experiment": "Default",
        "modelyard/schedule": "7b1c",
        "modelyard/slot": "2026-01-01T00-00",
        "modelyard/part": "run",
    }


@pytest.mark.parametrize("changes", [{}, {"attempt": 2}, {"part": "component"}])
def test_the_selector_is_of_the_labels(changes: dict[str, object]) -> None:
    attempt = wanted(**changes)

    assert names.selector(attempt).items() <= names.labels(attempt).items()
    assert names.selector(attempt) != names.selector(wanted(attempt=9))
