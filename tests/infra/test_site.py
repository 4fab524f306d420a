"""What the submitter's machine may say of a run that is for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from infra import site
from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.storage import Store
from infra.storage.failures import StoreError


def _exists(store: Store) -> bool:
    return store.exists()


def test_on_this_machine_everything_is_asked(tmp_path: Path) -> None:
    assert not site.is_validating_for_remote()
    assert site.inspect_store("output_uri", str(tmp_path), _exists) is True
    assert site.inspect_store("output_uri", str(tmp_path / "none"), _exists) is False


def test_it_lasts_as_long_as_the_block_even_if_that_fails() -> None:
    with pytest.raises(KeyError), site.validating_for_remote():
        assert site.is_validating_for_remote()
        raise KeyError
    assert not site.is_validating_for_remote()


@pytest.mark.parametrize(
    "uri", ["/data", "file:///data", "/nas", "/nas/", "/nas/../data", "/nasty/x", "FILE:///a%20b"]
)
def test_a_path_of_this_machine_is_refused(uri: str) -> None:
    with pytest.raises(BadInputError) as raised, site.validating_for_remote():
        site.inspect_store("output_uri", uri, _exists)

    assert raised.value.code == "PathNotShared"
    assert raised.value.message.startswith("output_uri: ")
    assert "the cluster's machines cannot access it" in raised.value.message
    assert "s3://" in raised.value.hint
    assert "nas://" in raised.value.hint


def test_one_on_a_nas_of_this_machine_is_told_its_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"team": str(tmp_path)}))
    with pytest.raises(BadInputError) as raised, site.validating_for_remote():
        site.inspect_store("output_uri", f"{tmp_path}/data/x", _exists)

    assert "nas://team:/data/x" in raised.value.hint


def test_where_the_clusters_machines_have_a_nas_they_know_it_alone() -> None:
    with site.validating_for_remote():
        assert site.inspect_store("output_uri", "/nas/team/data", _exists) is None
        assert site.inspect_store("output_uri", "nas://team:/data", _exists) is None


def test_a_nas_that_is_mounted_here_too_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"team": str(tmp_path), "gone": "/none"}))
    with site.validating_for_remote():
        assert site.inspect_store("output_uri", "nas://team:/data", _exists) is False
        assert site.inspect_store("output_uri", "nas://gone:/data", _exists) is None
        with pytest.raises(BadInputError):
            site.inspect_store("output_uri", "nas://team", _exists)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (StoreError("no way", code="StoreUnreachable"), None),
        (BadInputError("no key", code="CredentialsMissing"), None),
        (BadInputError("not yours", code="AccessDenied"), None),
        (NotFoundError("no bucket", code="BucketMissing"), NotFoundError),
        (BadInputError("climbs", code="PathClimbs"), BadInputError),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_object_storage_is_asked_where_it_can_be_reached(
    error: ModelyardError, answer: type[ModelyardError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: str) -> NoReturn:
        raise error

    monkeypatch.setattr(site.storage, "store", refused)
    with site.validating_for_remote():
        if answer is None:
            assert site.inspect_store("output_uri", "s3://bucket/key", _exists) is None
        else:
            with pytest.raises(answer):
                site.inspect_store("output_uri", "s3://bucket/key", _exists)
    with pytest.raises(ModelyardError):  # the run's own machine does not look away
        site.inspect_store("output_uri", "s3://bucket/key", _exists)


@pytest.mark.parametrize(
    ("uri", "known"),
    [
        ("nas://a", "a"), ("NAS://a:", "a"), ("nas://a:/x/y", "a"), ("/nas/a", "a"),
        ("/nas/a/x", "a"), ("file:///nas/a/x", "a"), ("/nas", ""), ("/x/nas/a", ""),
        ("/nas/../a", ""), ("s3://nas/a", ""), ("", ""), ("models:/nas/1", ""),
    ],
)  # fmt: skip
def test_which_nas_a_uri_is_on(uri: str, known: str) -> None:
    assert site.nas_id(uri) == known


@pytest.mark.parametrize(
    ("told", "apart"), [({}, False), ({"MODELYARD_NODES": "1"}, False),
                        ({"MODELYARD_NODES": "2"}, True), ({"MODELYARD_NODES": "x"}, False)],
)  # fmt: skip
def test_whether_nodes_are_machines_of_their_own(told: dict[str, str], apart: bool) -> None:
    assert site.has_several_pods(told) is apart


def test_whether_this_is_a_pod() -> None:
    assert site.in_pod({"MODELYARD_POD_UID": "u"})
    assert not site.in_pod({})
