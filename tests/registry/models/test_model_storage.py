"""Models whose files lie in object storage."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from infra.errors import BadInputError
from registry import deletion
from registry.models import models
from registry.models.models import ServingSpec
from tests.infra.storage.server import Server
from tests.registry.model_files import MAKERS
from tests.registry.trained import content

pytestmark = [
    pytest.mark.usefixtures("mlflow"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

KEY_ID, SECRET = "an-access-key", "a-secret-key"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


class Bucket:
    """An empty bucket, to which the settings lead."""

    def __init__(self, server: Server) -> None:
        self.name = f"bucket-{uuid.uuid4().hex}"
        self.host = server.host
        self.client: Any = boto3.session.Session().client(
            "s3", endpoint_url=f"http://{server.host}", region_name="us-east-1",
            aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET,
        )  # fmt: skip
        self.client.create_bucket(Bucket=self.name)

    def put(self, folder: Path, prefix: str) -> None:
        for name, data in content(folder).items():
            self.client.put_object(Bucket=self.name, Key=f"{prefix}/{name}", Body=data)

    @property
    def keys(self) -> set[str]:
        return {each["Key"] for each in self.client.list_objects_v2(Bucket=self.name)["Contents"]}


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for scheme in ("S3", "OBS"):
        monkeypatch.setenv(f"MODELYARD_{scheme}_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv(f"MODELYARD_{scheme}_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", f"http://{server.host}")
    return Bucket(server)


@pytest.mark.parametrize("kind", ["pytorch archive", "huggingface", "onnx-triton"])
@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_from_a_bucket(scheme: str, kind: str, bucket: Bucket, name: str, tmp_path: Path) -> None:
    framework, make = MAKERS[kind]
    make(tmp_path / "own", name)
    bucket.put(tmp_path / "own", "tmp/a model")
    place = f"{bucket.host}/{bucket.name}" if scheme == "obs" else bucket.name
    uri = f"{scheme}://{place}/tmp/a model"

    made = models.create(name, ServingSpec(framework), uri=uri)
    found = models.resolve(made["uri"])
    models.fetch(found, tmp_path / "fetched")

    assert found.source_uri == uri
    assert content(tmp_path / "fetched") == content(tmp_path / "own")
    before = bucket.keys
    deletion.delete("model", name)
    assert bucket.keys == before


def test_one_object(bucket: Bucket, name: str, tmp_path: Path) -> None:
    MAKERS["scikit-learn"][1](tmp_path / "own", name)
    bucket.put(tmp_path / "own", "m")
    uri = f"s3://{bucket.name}/m/model.joblib"

    made = models.create(name, ServingSpec("scikit-learn"), uri=uri)
    models.fetch(models.resolve(made["uri"]), tmp_path / "fetched")

    assert content(tmp_path / "fetched") == content(tmp_path / "own")


def test_from_a_nas(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS["onnx"][1](tmp_path / "mount" / "m", name)
    monkeypatch.setenv("MODELYARD_NAS", f'{{"n1": "{tmp_path}/mount"}}')

    made = models.create(name, ServingSpec("onnx"), uri="nas://n1:/m")
    models.fetch(models.resolve(made["uri"]), tmp_path / "fetched")

    assert content(tmp_path / "fetched") == content(tmp_path / "mount" / "m")


def test_what_is_not_in_the_bucket(bucket: Bucket, name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        models.create(name, ServingSpec("onnx"), uri=f"s3://{bucket.name}/nothing")

    assert raised.value.code == "ArtifactMissing"


def test_a_password_in_a_uri_is_refused_and_not_told(name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        models.create(name, ServingSpec("onnx"), uri="obs://key:canary@host/c/p")

    assert raised.value.code == "SecretInUri"
    assert "canary" not in str(raised.value)
