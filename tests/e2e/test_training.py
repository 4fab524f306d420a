"""Training through the command, in the pool of a real stack."""

import json
import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.e2e.stack import ALGORITHMS, MODELYARD, flags, kill, wait_for
from tests.infra.workloads import packages
from tests.processes import pid_in
from tests.test_light_imports import HEAVY

pytestmark = pytest.mark.e2e


def pids_of(stack, run):
    """The process ids that the stubborn script printed."""
    log = stack.home / "runs" / run / "train.log"
    found = wait_for(
        lambda: re.search(r"pids (\d+) (\d+)\n", log.read_text()) if log.exists() else None,
        30,
        "the script",
    )
    return [int(pid) for pid in found.groups()]


def assert_gone(pids, timeout):
    wait_for(lambda: not any(map(psutil.pid_exists, pids)), timeout, f"{pids} to be gone")


def test_a_training_ends_complete_with_model_metrics_log_and_lineage(stack, tmp_path):
    output = tmp_path / "output"
    answer = stack.do(
        "run", "train", "--watch",
        *flags("steps", {"name": "whole", "experiment": "first", "description": "a test",
                         "hyperparameters": {"steps": 5}, "metrics": [{"name": "loss"}],
                         "output_uri": output}),
    )  # fmt: skip
    assert answer["state"] == "COMPLETE"
    result = answer["result"]
    assert result["metrics"] == {"loss": 0.2}
    assert result["model_uri"] == "models:/whole/1"
    assert (output / "model.txt").read_text() == "5 steps"
    assert sorted(path.name for path in output.iterdir()) == ["model.txt"]
    asked = ("run", "train", "--watch", *flags("steps", {"output_uri": output}))
    assert stack.do(*asked)["state"] == "COMPLETE"  # a run has published there before
    (tmp_path / "theirs").touch()
    refused = stack.ask("run", "train", *flags("steps", {"output_uri": tmp_path}))
    assert refused.error["code"] == "OutputNotEmpty"

    run = stack.mlflow(f"runs/get?run_id={result['mlflow_run_id']}")["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "whole"
    assert tags["modelyard.flow_run_id"] == answer["flow_run_id"]
    assert tags["mlflow.note.content"] == "a test"
    history = stack.mlflow(
        f"metrics/get-history?metric_key=loss&run_id={result['mlflow_run_id']}"
    )["metrics"]
    assert [(point["step"], point["value"]) for point in history] == [
        (0, 1.0), (1, 0.5), (2, 0.3333), (3, 0.25), (4, 0.2)
    ]  # fmt: skip

    model = stack.do("model", "show", "whole")["versions"][0]
    assert model["flow_run_id"] == answer["flow_run_id"]
    assert model["mlflow_run_id"] == result["mlflow_run_id"]
    assert "whole" in [model["name"] for model in stack.do("model", "list")]


def test_the_script_is_told_what_the_contract_says(stack, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    stack.do(
        "run", "train", "--watch",
        *flags("contract", {"name": "told", "datasets": [{"name": "train", "uri": data}],
                            "hyperparameters": {"epochs": 3, "learning_rate": 0.1, "fast": True,
                                                "kind": "a b"},
                            "output_uri": tmp_path / "out"}),
    )  # fmt: skip
    told = json.loads((tmp_path / "out" / "told.json").read_text())
    env = told["env"]
    assert told["arguments"] == [
        "--epochs", "3", "--fast", "true", "--kind", "a b", "--learning_rate", "0.1"
    ]  # fmt: skip
    assert env["EM_HP_EPOCHS"] == "3"
    assert json.loads(env["EM_HPS"]) == {
        "epochs": 3, "learning_rate": 0.1, "fast": True, "kind": "a b"
    }  # fmt: skip
    assert env["EM_DATASET_TRAIN"] == str(data)
    assert json.loads(env["EM_DATASETS"]) == {"train": str(data)}
    assert env["EM_ENTRY_POINT"] == "contract.py"
    assert told["cwd"] == env["EM_SOURCE_DIR"]
    assert (env["EM_REGION"], env["EM_APPKEY"]) == ("local", "modelyard")
    assert env["MLFLOW_RUN_ID"]
    assert told["leaked"] == []


@pytest.mark.parametrize(
    ("algorithm", "code", "says"),
    [("fails", "ScriptFailed", "the data is wrong"), ("starved", "OOMKilled", "smaller batches")],
)
def test_a_failed_script_ends_in_fail_train_with_its_last_lines(stack, algorithm, code, says):
    answer = stack.ask("run", "train", "--watch", *flags(algorithm, {}))
    assert answer.code == 1
    assert answer.json["state"] == "FAIL TRAIN"
    assert code in answer.json["message"]
    assert says in answer.json["message"]
    asked = {"flow_runs": {"id": {"any_": [answer.json["flow_run_id"]]}}}
    (script,) = wait_for(
        lambda: [
            task for task in stack.prefect("task_runs/filter", asked)
            if task["name"].startswith("run script") and task["state_type"] != "RUNNING"
        ],
        30,
        "the task's end",
    )  # fmt: skip
    assert script["state_type"] == "FAILED"
    assert says in script["state"]["message"]


def test_a_training_past_its_limit_is_timed_out(stack):
    answer = stack.ask("run", "train", "--watch", *flags("stubborn", {"max_minutes": 0.02}))
    assert (answer.code, answer.json["state"]) == (1, "TIMED OUT")


_LOG = """
from flows.connection import connected
from registry.runs import runs
with connected():
    print(*runs.logs("{run}"), sep="\\n")
"""


def test_stop_ends_a_script_that_ignores_sigterm_and_leaves_no_output(stack, tmp_path):
    run = stack.start("stubborn", output_uri=tmp_path / "out")
    pids = pids_of(stack, run)
    assert stack.do("runs", "stop", run)["state"] == "STOPPED"
    assert_gone(pids, 1)
    assert not (tmp_path / "out").exists()
    assert stack.ask("runs", "stop", run).error["code"] == "Conflict"
    status = stack.mlflow(f"runs/get?run_id={stack.show(run)['result']['mlflow_run_id']}")
    assert status["run"]["info"]["status"] == "KILLED"
    assert stack.show(run)["message"] == "Stopped."
    log = wait_for(
        lambda: found if "Finished" in (found := stack.execute(_LOG.format(run=run))) else None,
        30,
        "the log's end",
    )
    assert "Finished in state Cancelled('Stopped.')" in log
    assert not re.search("Crash|Running\\(\\)|exception", log)


def test_a_killed_worker_ends_the_script_and_the_run_and_a_retry_resumes(stack):
    run = stack.start("steps", name="resumed", hyperparameters={"steps": 30, "seconds": 0.2})
    checkpoint = stack.home / "runs" / run / "checkpoints" / "step"
    wait_for(lambda: checkpoint.exists() and int(checkpoint.read_text()) >= 3, 30, "a checkpoint")
    kill_whole_worker(stack)
    found = stack.wait_for_state(run, "FAIL TRAIN", timeout=40)
    assert "retry" in found["message"] or found["message"]
    reached = int(checkpoint.read_text())
    assert reached < 30
    stack.do("runs", "retry", run)
    found = stack.wait_for_state(run, "COMPLETE", timeout=60)
    log = (stack.home / "runs" / run / "train.log").read_text()
    assert f"resumed from step {reached}" in log
    assert log.count("step 1 loss") == 1
    assert found["attempts"] == 2


def kill_whole_worker(stack):
    """Kill the worker process itself, not only its client."""
    workers = [
        process for process in stack.processes()
        if process.environ().get("MODELYARD_PART", "").startswith("worker@")
        and "MODELYARD_RUN" not in process.environ()
    ]  # fmt: skip
    assert workers
    kill(stack.parts()["worker"]["pid"])
    for process in workers:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def test_requirements_go_into_an_overlay_that_is_reused(stack, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "greeting"\nversion = "1"\n'
    )
    (package / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(folder, config=None, metadata=None):\n"
        "    name = 'greeting-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(f'{folder}/{name}', 'w') as wheel:\n"
        "        info = 'greeting-1.dist-info'\n"
        "        wheel.writestr('greeting.py', 'TEXT = \"hello\"')\n"
        "        wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\\nName: greeting\\n"
        "Version: 1\\n')\n"
        "        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr(f'{info}/RECORD', 'greeting.py,,\\n')\n"
        "    return name\n"
    )
    algorithm = tmp_path / "algorithm"
    algorithm.mkdir()
    (algorithm / "train.py").write_text("import greeting, numpy\nprint(greeting.TEXT)\n")
    (algorithm / "requirements.txt").write_text(f"{package}\nnumpy\n")
    asked = flags("train", {"algorithm.uri": algorithm})
    cache = stack.home / "overlays"
    before = set(cache.iterdir()) if cache.exists() else set()  # of other tests' runs
    for _ in range(2):
        answer = stack.ask("run", "train", "--watch", *asked)
        assert answer.code == 0, answer.out
    overlays = [path for path in set(cache.iterdir()) - before if path.is_dir()]
    assert len(overlays) == 1

    (algorithm / "requirements.txt").write_text("/nowhere/at/all\n")
    answer = stack.ask("run", "train", "--watch", *asked)
    assert answer.json["state"] == "CREATE FAILED"
    assert "RequirementsNotInstallable" in answer.json["message"]
    assert answer.json["result"] is None
    log = stack.do("runs", "logs", answer.json["flow_run_id"])  # it has no script's
    assert "Installing requirements.txt" in log
    assert not any("Traceback" in line for line in log)
    assert [path for path in set(cache.iterdir()) - before if path.is_dir()] == overlays


@pytest.mark.parametrize("verb", ["run", "call"])
def test_stop_ends_an_installation(stack, tmp_path, verb):
    algorithm = tmp_path / "algorithm"
    algorithm.mkdir()
    (algorithm / "train.py").write_text("")
    package = packages.slow_source(tmp_path / "slow", tmp_path)
    (algorithm / "requirements.txt").write_text(f"{package}\n")
    name = f"installs {verb}"
    asked = flags("train", {"algorithm.uri": algorithm, "name": name})
    process = subprocess.Popen(
        [MODELYARD, verb, "train", *asked, "--json"],
        env=stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    pid = pid_in(tmp_path / "pid")
    run = stack.named(name)

    assert stack.do("runs", "stop", run)["state"] == "STOPPED"
    assert_gone([pid], 5)
    process.wait(30)
    log = stack.execute(_LOG.format(run=run))
    assert "Installing requirements.txt" in log
    assert not re.search("Crash|Running\\(\\)|exception", log)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"datasets": [{"name": "a", "uri": "/nowhere"}]}, "DatasetMissing"),
        ({"resources": {"instance_type": "gpu.a100"}}, "GpuMissing"),
        ({"template": "nobody's"}, "TemplateUnknown"),
        ({"nothing": 1}, "ParameterUnknown"),
    ],
)
def test_bad_input_is_refused_before_a_run_exists(stack, changed, code):
    before = len(stack.do("runs", "list", "-n", "500"))
    error = stack.ask("run", "train", *flags("steps", changed)).error
    assert error["code"] == code
    assert error["message"]
    assert len(stack.do("runs", "list", "-n", "500")) == before


def test_the_form_refuses_with_the_same_words_as_the_command(stack):
    asked = {"algorithm": {"uri": str(ALGORITHMS), "entry_point": "none.py"}}
    error = stack.ask("run", "train", *flags("none", {})).error
    run = stack.execute(  # what the UI does when somebody presses the button
        "import os; from flows.connection import connected\n"
        "from registry.runs import runs\n"
        "with connected():\n"
        f"    print(runs.submit('train', {asked!r}, None, 'somebody'))\n"
    ).strip()
    found = stack.wait_for_state(run, "CREATE FAILED")
    assert found["message"] == f"{error['code']}: {error['message']} {error['hint']}"
    assert found["result"] is None
    assert not (Path(stack.home) / "runs" / run / "source").exists()


def test_called_in_python_it_returns_its_result_or_raises(stack):
    out = stack.execute(
        "from flows.training import train\n"
        "from infra.errors import ModelyardError\n"
        f"a = {{'uri': {str(ALGORITHMS)!r}, 'entry_point': 'steps.py'}}\n"
        "print('RESULT', train(name='in python', algorithm=a, metrics=[{'name': 'loss'}]))\n"
        "for entry in ('fails.py', 'none.py'):\n"
        "    try:\n"
        "        train(algorithm={**a, 'entry_point': entry})\n"
        "    except ModelyardError as error:\n"
        "        print('ERROR', error.code)\n"
    )
    assert "'model_uri': 'models:/in python/1', 'metrics': {'loss': 0.3333}" in out
    assert re.findall("ERROR (.*)", out) == ["ScriptFailed", "EntryPointMissing"]


def test_runs_are_listed_renamed_copied_and_deleted(stack):
    run = stack.start("fails", name="before", experiment="verbs")
    stack.wait_for_state(run, "FAIL TRAIN")
    stack.do("runs", "update", run, "--name", "after", "--description", "renamed")
    found = stack.do("runs", "show", "after")
    assert found["id"] == run
    assert found["history"][-1]["verb"] == "update"
    copied = stack.do("runs", "copy", "after", "-p", "algorithm.entry_point=steps.py")
    assert copied["flow_run_id"] != run
    stack.wait_for_state(copied["flow_run_id"], "COMPLETE")
    listed = [row["id"] for row in stack.do("runs", "list", "--flow", "train")]
    assert listed.index(copied["flow_run_id"]) < listed.index(run)

    assert stack.ask("runs", "delete", copied["flow_run_id"]).error["code"] == "HasModel"
    folder = stack.home / "runs" / run
    assert folder.exists()
    mlflow_run_id = found["result"]["mlflow_run_id"]
    assert stack.do("runs", "delete", run)["deleted"]
    assert not folder.exists()
    assert stack.ask("runs", "show", run).error["code"] == "NotFound"
    info = stack.mlflow(f"runs/get?run_id={mlflow_run_id}")["run"]["info"]
    assert info["lifecycle_stage"] == "deleted"
    assert stack.ask("runs", "retry", copied["flow_run_id"]).error["code"] == "Conflict"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted])
    if done.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_a_full_output_disk_fails_the_run_and_leaves_nothing_half_made(stack, small_disk):
    asked = flags("large", {"name": "too large", "output_uri": small_disk / "out"})
    answer = stack.ask("run", "train", "--watch", *asked)
    assert (answer.code, answer.json["state"]) == (1, "FAIL TRAIN")
    assert "DiskFull" in answer.json["message"]
    assert list(small_disk.iterdir()) == []
    assert "too large" not in [model["name"] for model in stack.do("model", "list")]


def test_a_run_without_a_stack_is_refused_at_once(bare_home):
    error = bare_home.ask("run", "train", *flags("steps", {})).error
    assert error["code"] == "Stack"
    assert "modelyard up" in error["hint"]
    assert not bare_home.processes()


def test_stop_reaches_a_run_in_a_callers_own_process(stack):
    process = subprocess.Popen(
        [MODELYARD, "call", "train", *flags("stubborn", {"name": "mine"}), "--json"],
        env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    run = stack.named("mine")
    pids = pids_of(stack, run)
    assert stack.do("runs", "stop", run)["state"] == "STOPPED"
    assert_gone(pids, 5)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["state"]) == (1, "STOPPED")


def test_a_caller_that_is_killed_leaves_no_script_and_no_running_run(stack):
    process = subprocess.Popen(
        [MODELYARD, "call", "train", *flags("stubborn", {"name": "killed caller"}), "--json"],
        env=stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = stack.named("killed caller")
    pids = pids_of(stack, run)
    process.kill()
    process.wait()
    assert_gone(pids, 10)
    found = stack.wait_for_state(run, "FAIL TRAIN", timeout=40)
    assert "retry" in found["message"]


def test_a_name_with_an_apostrophe_is_kept_taken_and_found(stack):
    asked = flags("steps", {"name": "it's"})
    assert stack.do("run", "train", "--watch", *asked)["state"] == "COMPLETE"
    assert stack.ask("run", "train", *asked).error["code"] == "NameTaken"
    assert [version["version"] for version in stack.do("model", "show", "it's")["versions"]] == [1]


def test_a_model_that_cannot_be_uploaded_fails_the_run_at_once(stack):
    answer = stack.ask("run", "train", "--watch", *flags("pipe", {}))
    assert (answer.code, answer.json["state"]) == (1, "FAIL TRAIN")
    assert "NotAFile" in answer.json["message"]


def test_a_model_that_could_not_be_published_waits_for_a_retry(stack):
    answer = stack.ask("run", "train", "--watch", *flags("pipe", {"name": "waits"}))
    run = answer.json["flow_run_id"]
    model = stack.home / "runs" / run / "model"
    assert str(model) in answer.json["message"]
    (model / "pipe").unlink()
    (model / "empty").touch()

    stack.do("runs", "retry", run)

    found = stack.wait_for_state(run, "COMPLETE")
    assert found["result"]["model_uri"] == "models:/waits/1"
    log = (stack.home / "runs" / run / "train.log").read_text()
    assert log.splitlines().count("once") == 1  # the script does not run again
    kept = stack.mlflow(f"artifacts/list?run_id={found['result']['mlflow_run_id']}&path=model")
    assert [file["path"] for file in kept["files"]] == ["model/empty", "model/weights"]
    assert not model.exists()


def test_while_it_publishes_its_work_is_over(stack):
    run = stack.start("many")

    wait_for(lambda: stack.show(run)["state"] == "COMPLETE IN PROGRESS", 60, "it to publish")

    assert stack.wait_for_state(run, "COMPLETE")["result"]["model_uri"]


def test_a_renamed_run_keeps_its_name_when_it_is_retried(stack):
    run = stack.start("fails", name="old name")
    stack.wait_for_state(run, "FAIL TRAIN")
    assert stack.ask("runs", "update", run, "--name", "a/b").error["code"] == "NameInvalid"
    stack.do("runs", "update", run, "--name", "new name")
    stack.do("runs", "retry", run)
    found = wait_for(
        lambda: found if (found := stack.show(run))["attempts"] == 2 else None, 30, "a retry"
    )
    found = stack.wait_for_state(run, "FAIL TRAIN")
    assert found["name"] == "new name"


_ENFORCE = """
from flows.connection import connected
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
with connected(), get_client(sync_client=True) as client:
    found = client.read_deployment_by_name("train/train")
    client.update_deployment(found.id, DeploymentUpdate(enforce_parameter_schema=ENFORCED))
"""
_SUBMIT = """
from flows.connection import connected
from registry.runs import runs
with connected():
    print(runs.submit("train", {"max_minutes": "long"}, None, "somebody"))
"""


def test_a_form_whose_validation_is_off_is_refused_in_the_commands_words(stack):
    stack.execute(_ENFORCE.replace("ENFORCED", "False"))
    try:
        run = stack.execute(_SUBMIT).strip()
        found = stack.wait_for_state(run, "CREATE FAILED")
    finally:
        stack.execute(_ENFORCE.replace("ENFORCED", "True"))
    error = stack.ask("run", "train", "-p", "max_minutes=long").error
    assert found["message"] == f"{error['code']}: {error['message']} {error['hint']}"


def test_called_from_a_coroutine_it_returns_its_result(stack):
    out = stack.execute(
        "import asyncio\nfrom flows.training import train\n"
        "async def cell():\n"
        f"    return train(algorithm={{'uri': {str(ALGORITHMS)!r}, 'entry_point': 'steps.py'}})\n"
        "print(sorted(asyncio.run(cell())))\n"
    )
    assert "['metrics', 'mlflow_run_id', 'model_uri']" in out


def test_a_metric_that_is_no_number_ends_no_training(stack):
    metrics = [{"name": "loss"}, {"name": "gain"}]
    answer = stack.do("run", "train", "--watch", *flags("diverges", {"metrics": metrics}))
    assert answer["state"] == "COMPLETE"
    assert answer["result"]["metrics"] == {"gain": None, "loss": None}
    assert answer["result"]["model_uri"] is None


def test_a_run_imports_no_package_that_takes_long(stack):
    """From its start to its end, in an interpreter of its own, as in a pod."""
    heavy = HEAVY - {"alembic", "fastapi"}  # a call brings the schema up to date, makes the run
    algorithm = {"uri": str(ALGORITHMS), "entry_point": "steps.py"}
    told = stack.python(f"""
import json, sys
import modelyard.run_pod
from flows.training import train
train(name="light", algorithm={algorithm!r}, hyperparameters={{"steps": 1}})
print(json.dumps(sorted({heavy!r} & set(sys.modules))))
""")

    assert json.loads(told.splitlines()[-1]) == []
