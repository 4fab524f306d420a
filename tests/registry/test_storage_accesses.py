"""Named accesses to storage, as blocks of a real Prefect server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.storage import accesses
from infra.storage.accesses import StorageAccess
from registry import catalogue, deletion, history, storage_accesses, training_templates
from registry.schedules import schedules
from registry.schedules.schedules import ScheduleModel

SECRET = "canary-of-a-secret"


@pytest.fixture
def _stack(prefect_api: str, database: str) -> Iterator[None]:
    catalogue.migrate()
    accesses.forget()
    yield
    for one in storage_accesses.list_all():
        storage_accesses.remove(one.name)


def access(name: str = "data", *uris: str, **more: Any) -> StorageAccess:
    usual = {"key_id": "id", "secret_key": SECRET}
    return StorageAccess(name, uris or ("s3://data",), **{**usual, **more})


def schedule(name: str, parameters: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    schedules.add(
        ScheduleModel(
            id=name, name=name, description="", deployment="train", parameters=parameters,
            trigger={}, policy={}, enabled=True, paused="", registered=True, error="", source="",
            decided_until=0, next_slot=None, failures_since=0, created_at=now, created_by="me",
            changed_at=now, changed_by="me",
        )
    )  # fmt: skip


@pytest.mark.usefixtures("_stack")
class TestAccesses:
    def test_it_is_found_whole_and_shown_without_its_secret(self) -> None:
        given = access(endpoint="http://127.0.0.1:9000", region="here", session_token=SECRET)
        added = storage_accesses.add(given)

        assert accesses.find("s3://data/x") == given
        assert added.to_json() == {
            "name": "data", "uris": ["s3://data"], "endpoint": "http://127.0.0.1:9000",
            "region": "here", "key_id": "id", "folder": "",
        }  # fmt: skip
        assert storage_accesses.list_all() == [added]
        assert SECRET not in json.dumps(history.of("storage", "data"))
        with get_client(sync_client=True) as client:  # as Prefect's pages read it
            found = client.read_block_documents_by_type(accesses.BLOCK_TYPE, include_secrets=False)
        assert SECRET not in str([one.data for one in found])

    def test_adding_again_replaces_it_at_once(self) -> None:
        storage_accesses.add(access())
        storage_accesses.add(access(key_id="other"))

        found = accesses.find("s3://data/x")
        assert found is not None
        assert found.key_id == "other"
        assert len(storage_accesses.list_all()) == 1

    def test_two_for_one_uri_are_refused(self) -> None:
        storage_accesses.add(access("one", "obs://h/c", "obs://h/d"))
        with pytest.raises(ConflictError) as raised:
            storage_accesses.add(access("two", "obs://h/v1/AUTH_0/d/"))
        assert raised.value.code == "AccessTaken"
        storage_accesses.add(access("two", "obs://h/d/e"))

    def test_removal(self) -> None:
        storage_accesses.add(access())
        assert deletion.delete("storage", "data") == {"name": "data", "deleted": True}
        assert accesses.find("s3://data/x") is None
        with pytest.raises(NotFoundError) as raised:
            deletion.delete("storage", "data")
        assert raised.value.code == "AccessUnknown"

    def test_what_a_schedule_or_a_template_needs_is_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage_accesses.add(access())
        schedule("nightly", {"datasets": [{"name": "a", "uri": "s3://data/train"}], "x": "s3://o"})
        training_templates.create("t", "", {"algorithm": {"uri": "s3://data/code"}})

        with pytest.raises(ConflictError) as raised:
            deletion.delete("storage", "data")
        assert raised.value.code == "AccessInUse"
        assert raised.value.message == (
            "The schedule nightly uses s3://data/train. The template t uses s3://data/code."
        )
        storage_accesses.add(access("every", "s3://"))
        deletion.delete("storage", "data")
        with pytest.raises(ConflictError):
            deletion.delete("storage", "every")
        monkeypatch.setenv("MODELYARD_S3_ACCESS_KEY_ID", "id")
        deletion.delete("storage", "every")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (access("A"), "AccessNameInvalid"),
        (access("a", "gs://b"), "UnknownScheme"),
        (access("a", "/mnt/a"), "UnknownScheme"),
        (access("a", "obs://"), "UnknownScheme"),
        (access("a", "nas://"), "UnknownScheme"),
        (access("a", "s3://b ucket"), "BucketNameWrong"),
        (access("a", "s3://me:x@b"), "SecretInUri"),
        (access("a", "obs://a b"), "EndpointWrong"),
        (access("a", "s3://b", "obs://h"), "AccessSchemes"),
        (access("a", "nas://id"), "AccessFields"),
        (access("a", "nas://id", folder="/mnt"), "AccessFields"),
        (access("a", "nas://a", "nas://b", folder="/m", key_id="", secret_key=""), "AccessFields"),
        (access("a", "s3://b", folder="/mnt"), "AccessFields"),
        (access("a", "s3://b", secret_key=""), "CredentialsMissing"),
        (access("a", "obs://h", key_id="", secret_key=""), "CredentialsMissing"),
        (access("a", "s3://b", endpoint="h:9000"), "EndpointWrong"),
        (access("a", "s3://b", endpoint=f"http://me:{SECRET}@h"), "EndpointWrong"),
        (access("a", "obs://h", endpoint="http://h"), "EndpointWrong"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.uris[0],
)
def test_what_could_not_be_used_is_refused(given: StorageAccess, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        storage_accesses.validate(given)
    assert raised.value.code == code
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        access("a", "s3://"),
        access("a", "s3://b/c/d", "S3://e", endpoint="http://[::1]:9000"),
        access("a", "s3://b", key_id="", secret_key=""),  # boto3's own rules, such as a role
        access("a", "s3://b", key_id="secret:id", secret_key="secret:key"),
        access("a", "obs://h:8080"),
        access("a", "obs://h/v1/AUTH_0/c"),
        access("a", "nas://id", folder="/mnt", key_id="", secret_key=""),
        access("a", "nas://id:/", folder="/mnt", key_id="", secret_key=""),
    ],
    ids=lambda value: value.uris[0],
)
def test_what_can_be_used_is_not(given: StorageAccess) -> None:
    storage_accesses.validate(given)
