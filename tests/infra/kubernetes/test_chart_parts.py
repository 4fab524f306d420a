"""The parts start as their manifests say: the same command, environment and probes, as processes.

What a cluster would add is put in their place: Secrets and ConfigMaps have values, names of
Services are this machine, and a volume is a folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra import tcp_ports
from infra.door import run_scope
from infra.door.credential import Credential
from infra.home import Home
from infra.stack import postgres
from tests.infra.kubernetes import charts
from tests.infra.kubernetes.charts import Object
from tests.processes import eventually

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
CREDENTIAL = "open-sesame"
AUTH = ("modelyard", CREDENTIAL)
PARTS = ("prefect", "mlflow", "web", "scheduler")


class Container:
    """The container of a Deployment, on this machine."""

    def __init__(self, release: Release, part: str, folder: Path) -> None:
        deployment = charts.one(release.objects, "Deployment", part)
        (self.spec,) = deployment["spec"]["template"]["spec"]["containers"]
        self._home = folder / "home"
        self._home.mkdir(parents=True, exist_ok=True)
        self._release = release

    def placed(self, words: list[str]) -> list[str]:
        return [self._local(word) for word in words]

    def _local(self, text: str) -> str:
        places = {
            "/modelyard/home": str(self._home),
            "0.0.0.0": "127.0.0.1",
            **{
                f"://{one['metadata']['name']}.{charts.NAMESPACE}.svc": "://127.0.0.1"
                for one in self._release.objects
                if one["kind"] == "Service"
            },
        }
        for place, here in places.items():
            text = text.replace(place, here)
        return text

    @property
    def env(self) -> dict[str, str]:
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": binaries, "PYTHONPATH": str(ROOT)}
        for source in self.spec["envFrom"]:
            env |= self._release.config(source["configMapRef"]["name"])
        for variable in self.spec["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            env[variable["name"]] = (
                self._release.secrets[reference["name"]][reference["key"]]
                if reference
                else _filled(variable["value"], env)
            )
        return {name: self._local(value) for name, value in env.items()}


class Pod:
    """A pod of a Deployment, as a process of this machine."""

    def __init__(self, release: Release, part: str, folder: Path) -> None:
        self._container = Container(release, part, folder)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._container.placed(self._container.spec["args"]),
                cwd=self._container.spec["workingDir"],
                env=self._container.env,
                stdout=log,
                stderr=log,
            )

    def passes(self, probe: str) -> bool:
        """Whether a probe of it succeeds, asked once."""
        assert self._process.poll() is None, self._log.read_text()
        asked = self._container.spec[probe]
        if "exec" in asked:
            command = self._container.placed(asked["exec"]["command"])
            done = subprocess.run(command, env=self._container.env, capture_output=True)
            return done.returncode == 0
        headers = {one["name"]: one["value"] for one in asked["httpGet"]["httpHeaders"]}
        try:
            answer = httpx.get(self.url + asked["httpGet"]["path"], headers=headers, timeout=20)
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._container.spec['ports'][0]['containerPort']}"

    def end(self) -> int:
        """How it ends when Kubernetes stops it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Release:
    """An installed chart, but for the cluster."""

    def __init__(self, database: Home, folder: Path) -> None:
        ports = tcp_ports.free_ports(3)
        self.secrets = {
            "modelyard-database": {
                "prefect": postgres.url(database, "asyncpg", "prefect"),
                "mlflow": postgres.url(database, "psycopg", "mlflow"),
                "catalogue": postgres.url(database, "psycopg", "modelyard"),
            },
            "door": {"credential": CREDENTIAL},
        }
        self.objects: list[Object] = charts.objects(
            charts.values(
                "least",
                door={"secret": "door"},
                prefect={"port": ports[0]},
                mlflow={"port": ports[1]},
                web={"port": ports[2]},
            )
        )
        self.pods: dict[str, Pod] = {}
        self._folder = folder

    def config(self, name: str) -> dict[str, Any]:
        (found,) = [one["data"] for one in self.objects
                    if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name]  # fmt: skip
        return dict(found)

    def env(self, part: str) -> dict[str, str]:
        """The environment of a part's container, here."""
        return Container(self, part, self._folder / part).env

    def start(self) -> None:
        _migrate(self.secrets["modelyard-database"]["catalogue"])
        for part in PARTS:
            self.pods[part] = Pod(self, part, self._folder / part)


def _filled(text: str, env: dict[str, str]) -> str:
    """With ``$(NAME)`` replaced by what stands before it, as the kubelet does."""
    return re.sub(r"\$\((\w+)\)", lambda name: env[name[1]], text)


def _migrate(catalogue: str) -> None:
    """The catalogue's tables, which the deploy Job makes on a cluster."""
    subprocess.run(
        [sys.executable, "-c", "from registry import catalogue; catalogue.migrate()"],
        env={**os.environ, "MODELYARD_DATABASE_URL": catalogue, "PYTHONPATH": str(ROOT)},
        check=True,
    )


@pytest.fixture(scope="module")
def release(database_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    made = Release(database_home, tmp_path_factory.mktemp("p"))
    try:
        made.start()
        for part, pod in made.pods.items():
            eventually(lambda pod=pod: pod.passes("startupProbe"), f"{part} has started", 180)
            eventually(lambda pod=pod: pod.passes("readinessProbe"), f"{part} is ready", 60)
        yield made
    finally:
        for pod in made.pods.values():
            pod.end()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_passes_its_probes(release: Release, part: str) -> None:
    pod = release.pods[part]

    assert pod.passes("startupProbe")
    assert pod.passes("readinessProbe")
    assert pod.passes("livenessProbe")


@pytest.mark.parametrize(
    ("part", "method", "path"),
    [
        ("prefect", "POST", "/api/flows/count"),
        ("mlflow", "GET", "/api/2.0/mlflow/experiments/search?max_results=1"),
        ("web", "GET", "/"),
    ],
)
def test_servers_ask_who_is_there(release: Release, part: str, method: str, path: str) -> None:
    url = f"{release.pods[part].url}{path}"

    assert httpx.request(method, url).status_code == 401
    assert httpx.request(method, url, auth=("modelyard", "guessed")).status_code == 401
    assert httpx.request(method, url, auth=AUTH).status_code == 200


def test_probes_tell_nothing_but_a_status(release: Release) -> None:
    answer = httpx.get(f"{release.pods['mlflow'].url}/ready")

    assert (answer.status_code, answer.content) == (200, b"")


def test_a_script_reaches_its_own_run_alone(release: Release) -> None:
    """With the credential that a run's process derives from what its pod is given."""
    api = f"{release.pods['mlflow'].url}/api/2.0/mlflow"
    runs = []
    for name in ("own", "other"):
        asked = {"experiment_id": "0", "run_name": name}
        made = httpx.post(f"{api}/runs/create", json=asked, auth=AUTH).json()
        runs.append(made["run"]["info"]["run_id"])
    issued = run_scope.issue(Credential(CREDENTIAL), runs[0])
    script = (issued["MLFLOW_TRACKING_USERNAME"], issued["MLFLOW_TRACKING_PASSWORD"])

    answers = [httpx.get(f"{api}/runs/get?run_id={run}", auth=script) for run in runs]

    assert [answer.status_code for answer in answers] == [200, 403]
    flows = httpx.post(f"{release.pods['prefect'].url}/api/flows/count", auth=script)
    assert flows.status_code == 401


def test_a_person_logs_in_by_a_link(release: Release) -> None:
    """Which ``modelyard open`` prints in the worker's pod."""
    env = {**os.environ, **release.env("worker"), "PYTHONPATH": str(ROOT), "BROWSER": "true"}
    told = subprocess.run(
        [sys.executable, "-m", "modelyard.main", "open", "mlflow"],
        env=env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (link,) = re.findall(r"https?://.*", told.replace("\n", ""))
    port = release.pods["mlflow"].url.rpartition(":")[2]

    assert link.startswith(f"http://localhost:{port}/?modelyard_token=")
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(link).status_code == 200
    assert httpx.get(link).status_code == 401  # once


def test_the_pages_tell_prefect_who_they_are(release: Release) -> None:
    """A run that Prefect does not know is no page; a Prefect that refuses would be an error."""
    unknown = "00000000-0000-0000-0000-000000000000"
    listed = httpx.get(release.pods["web"].url, auth=AUTH)
    answer = httpx.get(f"{release.pods['web'].url}/runs/{unknown}", auth=AUTH)

    assert (listed.status_code, answer.status_code) == (200, 404)
    assert "does not answer" not in listed.text


@pytest.mark.parametrize(
    ("part", "host", "served"),
    [
        ("web", "modelyard-web.modelyard.svc", True),
        ("web", "evil.example", False),
        ("mlflow", "modelyard-mlflow.modelyard.svc:5000", True),
        ("mlflow", "evil.example", False),
    ],
)
def test_servers_answer_to_their_own_names(
    release: Release, part: str, host: str, served: bool
) -> None:
    path = {"web": "/", "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1"}[part]
    answer = httpx.get(release.pods[part].url + path, headers={"host": host}, auth=AUTH)

    assert (answer.status_code < 400) == served


def test_the_browser_finds_prefect_where_it_is_forwarded_to(release: Release) -> None:
    port = release.pods["prefect"].url.rpartition(":")[2]
    told = httpx.get(
        f"{release.pods['prefect'].url}/ui-settings", auth=AUTH,
        headers={"host": f"localhost:{port}"},
    ).json()  # fmt: skip

    assert told["api_url"] == f"http://localhost:{port}/api"
    page = httpx.get(release.pods["prefect"].url, follow_redirects=True, auth=AUTH)
    assert "<html" in page.text


def test_parts_end_when_they_are_told(release: Release) -> None:
    """The last one: each ends by itself after SIGTERM."""
    ends = {part: pod.end() for part, pod in release.pods.items()}

    assert set(ends.values()) <= {0, -signal.SIGTERM, 128 + signal.SIGTERM}, ends
