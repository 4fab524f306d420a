"""A training whose algorithm, data, checkpoints and model are in object storage."""

import json
import re
import subprocess

import boto3.session
import psutil
import pytest
from botocore.config import Config

from tests.e2e.conftest import SECRET
from tests.e2e.stack import ALGORITHMS, MODELYARD, kill, wait_for
from tests.infra.storage.server import Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server():
    with Server().running() as made:
        yield made


@pytest.fixture(scope="module")
def s3(server):
    client = boto3.session.Session().client(
        "s3", endpoint_url=f"http://{server.host}", region_name="us-east-1",
        aws_access_key_id="key", aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    client.create_bucket(Bucket="box")
    for name in ("steps.py", "contract.py"):
        client.upload_file(str(ALGORITHMS / name), "box", f"algorithm/{name}")
    client.put_object(Bucket="box", Key="data/train/a b.csv", Body=b"1,2")
    client.put_object(Bucket="box", Key="data/one.csv", Body=b"3,4")
    return client


def keys(s3, prefix):
    found = s3.list_objects_v2(Bucket="box", Prefix=prefix).get("Contents", ())
    return sorted(each["Key"].removeprefix(prefix) for each in found)


def parameters(server, **more):
    uri = f"obs://{server.host}/box"
    asked = {
        "algorithm.uri": f"{uri}/algorithm",
        "algorithm.entry_point": "steps.py",
        "datasets": [{"name": "train", "uri": f"{uri}/data/train"},
                     {"name": "one", "uri": f"{uri}/data/one.csv"}],
        "checkpoint_uri": f"{uri}/{more['name']}/checkpoints",
        "output_uri": f"{uri}/{more['name']}/output",
        "logs.uri": f"{uri}/{more['name']}/logs",
        **more,
    }  # fmt: skip
    return [part for key, value in asked.items() for part in ("-p", f"{key}={json.dumps(value)}")]


def test_everything_in_object_storage(stack, server, s3):
    answer = stack.do("run", "train", "--watch", *parameters(server, name="stored"))

    assert answer["state"] == "COMPLETE"
    run = answer["flow_run_id"]
    assert keys(s3, "stored/") == ["checkpoints/step", f"logs/{run}.log", "output/model.txt"]
    model = s3.get_object(Bucket="box", Key="stored/output/model.txt")["Body"].read()
    assert model == b"3 steps"
    log = s3.get_object(Bucket="box", Key=f"stored/logs/{run}.log")["Body"].read()
    assert b"step 3 loss" in log
    assert not (stack.home / "runs" / run / "datasets").exists()
    told = json.dumps([answer, stack.show(run)])
    assert SECRET not in told
    for file in (path for path in stack.home.rglob("*.log") if "postgres" not in path.parts):
        assert SECRET not in file.read_text(errors="replace"), file


def test_the_script_sees_folders_and_no_secret(stack, server, s3):
    answer = stack.do(
        "run", "train", "--watch",
        *parameters(server, name="contract", **{"algorithm.entry_point": "contract.py"}),
    )  # fmt: skip

    assert answer["state"] == "COMPLETE"
    told = s3.get_object(Bucket="box", Key="contract/output/told.json")["Body"].read().decode()
    folders = json.loads(json.loads(told)["env"]["EM_DATASETS"])
    assert folders["train"].endswith("/datasets/train/files")
    assert folders["one"].endswith("/datasets/one")
    assert SECRET not in told
    assert "secret:storage" not in told


def test_a_killed_run_resumes_from_the_copies_when_its_own_are_lost(stack, server, s3):
    started = stack.do(
        "run", "train",
        *parameters(server, name="killed", hyperparameters={"steps": 30, "seconds": 0.2}),
    )  # fmt: skip
    run = started["flow_run_id"]
    wait_for(lambda: keys(s3, "killed/checkpoints/"), 60, "a checkpoint to be copied")
    worker = next(
        process for process in psutil.process_iter(["cmdline"])
        if str(stack.home) in " ".join(process.info["cmdline"] or ())
        and "steps.py" in " ".join(process.info["cmdline"] or ())
        and "leash.py" in " ".join(process.info["cmdline"] or ())
    )  # fmt: skip
    kill(worker.ppid())
    stack.wait_for_state(run, "FAIL TRAIN")
    for path in (stack.home / "runs" / run / "checkpoints").iterdir():
        path.unlink()

    stack.do("runs", "retry", run)

    stack.wait_for_state(run, "COMPLETE")
    log = (stack.home / "runs" / run / "train.log").read_text()
    assert re.search(r"resumed from step [1-9]", log)
    assert "step 30 loss" in log


def test_what_is_wrong_is_named_before_anything_starts(stack, server):
    for change, code in [
        ({"algorithm.uri": f"obs://{server.host}/none/algorithm"}, "BucketMissing"),
        ({"algorithm.uri": "obs://127.0.0.1:1/box/algorithm"}, "StoreUnreachable"),
        ({"datasets": [{"name": "a", "uri": f"obs://{server.host}/box/none"}]}, "DatasetMissing"),
    ]:
        answer = stack.ask("run", "train", *parameters(server, **{"name": "wrong", **change}))
        assert answer.error["code"] == code, change


def test_a_named_access_is_used_without_a_restart(stack, server, s3):
    given = parameters(server, name="named")
    by_name = [part.replace(f"obs://{server.host}/box", "s3://box") for part in given]
    add = ["storage", "add", "box", "s3://box", "--endpoint", f"http://{server.host}",
           "--key-id", "key"]  # fmt: skip
    env = {**stack.env, "MODELYARD_STORAGE_SECRET": SECRET}
    done = subprocess.run([MODELYARD, *add], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout
    try:
        assert stack.do("run", "train", "--watch", *by_name)["state"] == "COMPLETE"
        assert "named/output/model.txt" in keys(s3, "")
    finally:
        stack.do("storage", "remove", "box")
    assert stack.do("storage", "list") == []
    answer = stack.ask("run", "train", *by_name, "-p", "name=unnamed")
    assert answer.code == 1
    assert answer.error["code"] in {"CredentialsMissing", "CredentialsWrong", "BucketMissing"}
