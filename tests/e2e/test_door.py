"""Who gets in: attacks by a web page, by DNS and by another user, and the owner's own ways."""

from __future__ import annotations

import http.server
import json
import os
import pty
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from infra.door import sessions
from infra.home import Home
from tests.e2e.stack import MODELYARD
from tests.e2e.test_browser import CHROMIUM, QUIET, shoot

pytestmark = pytest.mark.e2e

_SECRET = "value-of-a-secret-block"


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it to test the UI")
    with sync_playwright() as playwright:
        rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, rebound])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    with chromium.new_context(viewport={"width": 1300, "height": 1000}) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield page


@pytest.fixture(scope="module")
def elsewhere():
    """The port of another server of this machine, whose pages are empty."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def links(stack):
    return stack.do("status")["links"]


def api(stack, path, body=None):
    return stack.prefect(path.removeprefix("/"), body)


@pytest.fixture(scope="module")
def deployment(stack):
    """A deployment's id; there is a Secret block as well."""
    kind = api(stack, "/block_types/slug/secret")["id"]
    (schema, *_) = api(
        stack, "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    )
    block = {
        "name": "door", "data": {"value": _SECRET}, "block_type_id": kind,
        "block_schema_id": schema["id"],
    }  # fmt: skip
    api(stack, "/block_documents/", block)
    return api(stack, "/deployments/name/train/train")["id"]


# What a page may try: each attempt's outcome is a text of what it could read, or of its failure.
_ATTACK = """
async ({prefect, mlflow, deployment, command}) => {
  const read = async (url, options) => {
    try { const r = await fetch(url, options); return `${r.type} ${r.status} ${await r.text()}`; }
    catch (error) { return `refused ${error}`; }
  };
  const run = JSON.stringify({job_variables: {command}, name: 'evil', parameters: {},
    state: {type: 'SCHEDULED'}});
  const create = `${prefect}/api/deployments/${deployment}/create_flow_run`;
  const blocks = JSON.stringify({include_secrets: true});
  const json = {'Content-Type': 'application/json'}, text = {'Content-Type': 'text/plain'};
  const found = [];
  for (const credentials of ['include', 'omit']) {
    const post = {method: 'POST', credentials};
    found.push(await read(create, {...post, headers: json, body: run}));
    found.push(await read(create, {...post, headers: text, body: run}));
    found.push(await read(create, {...post, headers: text, body: run, mode: 'no-cors'}));
    found.push(await read(`${prefect}/api/block_documents/filter`,
      {...post, headers: json, body: blocks}));
    found.push(await read(`${prefect}/api/block_documents/filter`,
      {...post, headers: text, body: blocks}));
    found.push(await read(`${prefect}/api/csrf-token?client=1`, {credentials}));
    found.push(await read(`${mlflow}/api/2.0/mlflow/experiments/create`,
      {...post, headers: json, body: '{"name": "evil"}'}));
    found.push(await read(`${mlflow}/api/2.0/mlflow/experiments/create`,
      {...post, headers: text, body: '{"name": "evil"}', mode: 'no-cors'}));
  }
  const form = document.createElement('form');  // a page that is left by a POST
  form.method = 'POST'; form.action = create; form.enctype = 'text/plain'; form.target = 'inner';
  const frame = document.createElement('iframe');
  frame.name = 'inner'; document.body.append(frame, form); form.submit();
  for (const path of ['/api/events/out', '/api/events/in', '/api/logs/out']) {
    for (const protocols of [[], ['prefect']]) {
      found.push(await new Promise(done => {
        const socket = new WebSocket(`${prefect.replace('http', 'ws')}${path}`, protocols);
        socket.onopen = () => done('opened');
        socket.onerror = () => done('refused websocket');
      }));
    }
  }
  await new Promise(done => setTimeout(done, 500));
  return found;
}
"""


@pytest.mark.parametrize("logged_in", [True, False])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_origin_does_nothing(
    stack, links, page, elsewhere, deployment, tmp_path, host, logged_in
):
    if logged_in:
        stack.log_in(page)
    page.goto(f"http://{host}:{elsewhere}/")
    runs = api(stack, "/flow_runs/count", {})
    flag = tmp_path / "flag"
    asked = {
        "prefect": links["prefect"], "mlflow": links["mlflow"], "deployment": deployment,
        "command": f"sh -c 'touch {flag}'",
    }  # fmt: skip

    found = page.evaluate(_ATTACK, asked)

    assert [told for told in found if not told.startswith(("refused", "opaque 0 "))] == []
    assert _SECRET not in str(found)
    assert api(stack, "/flow_runs/count", {}) == runs
    assert not flag.exists()
    with pytest.raises(urllib.error.HTTPError) as missing:
        stack.urlopen(
            f"{links['mlflow']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=evil"
        )
    assert missing.value.code == 404


def test_no_run_chooses_its_command(stack, deployment, tmp_path):
    """Not even one that its owner makes."""
    flag = tmp_path / "flag"
    body = {
        "name": "of a chosen command", "parameters": {}, "state": {"type": "SCHEDULED"},
        "job_variables": {"command": f"sh -c 'touch {flag}'"},
    }  # fmt: skip

    run = api(stack, f"/deployments/{deployment}/create_flow_run", body)["id"]

    stack.wait_for_state(run, "CREATE FAILED")  # the flow's own: it lacks an algorithm
    assert not flag.exists()


def test_a_name_that_was_bound_to_this_machine_opens_nothing(stack, links, page):
    stack.log_in(page)
    for link in links.values():
        answer = page.goto(link.replace("127.0.0.1", "evil.example"))
        assert answer.status == 403
        request = urllib.request.Request(link, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            stack.urlopen(request)
        assert refused.value.code == 403


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("curl"),
    reason="only root, with setpriv and curl, tries as another user",
)
def test_another_user_of_the_machine_gets_nothing(stack, links):
    nobody = pwd.getpwnam("nobody").pw_uid

    def curl(user, *arguments):
        switch = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        done = subprocess.run(
            [*switch, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments],
            capture_output=True, text=True, timeout=60, cwd="/",
        )  # fmt: skip
        return done.stdout

    for link in links.values():
        assert curl(nobody, link) == "401"
    create = f"{links['mlflow']}/api/2.0/mlflow/experiments/create"
    assert curl(nobody, "-d", "{}", create) == "401"

    # A cookie that the owner's browser has shown to another port is of no use to another user.
    held = sessions.of(Home(stack.home), stack.credential).cookies(str(os.getuid()))
    cookie = "; ".join(one.partition(";")[0] for one in held)
    for link in links.values():
        assert curl(os.getuid(), "-b", cookie, link) == "200"
        assert curl(nobody, "-b", cookie, link) == "401"

    # Nor where it closes its connection at once: from then on the kernel lists it as root's.
    address = urllib.parse.urlsplit(links["prefect"])
    for number in range(20):
        stack.prefect("variables/", {"name": f"kept_{number}", "value": number})
    attack = f"""
      for number in {{0..19}}; do
        exec 3<> /dev/tcp/{address.hostname}/{address.port}
        printf 'DELETE /api/variables/name/kept_%s HTTP/1.1\\r\\n' $number >&3
        printf 'Host: {address.netloc}\\r\\n' >&3
        printf 'Cookie: {cookie}\\r\\n\\r\\n' >&3
        exec 3>&-
      done"""
    switch = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    subprocess.run([*switch, "bash", "-c", attack], check=True, timeout=60, cwd="/")
    assert curl(nobody, "-b", cookie, links["prefect"]) == "401"  # the server has read the others
    left = stack.prefect("variables/filter", {"limit": 200})
    assert len([one for one in left if one["name"].startswith("kept_")]) == 20


def test_a_link_on_a_terminal_works_with_one_click(stack, links, page):
    shown = _on_a_terminal(stack, "status")
    logins = re.findall(rf"http://\S+{sessions.TOKEN_PARAMETER}=\S+", shown)
    assert [login.partition("/?")[0] for login in logins] == list(links.values())

    page.goto(links["prefect"])
    expect(page.get_by_text("modelyard open", exact=True)).to_be_visible()
    shoot(page, "not-logged-in")
    page.goto(logins[0])
    expect(page.get_by_role("link", name="Work Pools")).to_be_visible()
    assert sessions.TOKEN_PARAMETER not in page.url
    shoot(page, "logged-in")
    page.goto(links["mlflow"])  # one login opens them all
    expect(page.get_by_text("Experiments").first).to_be_visible()
    page.goto(logins[0])  # and the link is as good as a bare one there
    expect(page.get_by_role("link", name="Work Pools")).to_be_visible()


def test_a_used_link_logs_nobody_else_in(stack, page, chromium):
    (login, *_) = re.findall(r"http://\S+", _on_a_terminal(stack, "status"))
    page.goto(login)

    with chromium.new_context() as other:
        answer = other.new_page().goto(login)
    assert answer.status == 401


def _on_a_terminal(stack, *arguments):
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [MODELYARD, *arguments], env={**stack.env, "COLUMNS": "80", "TERM": "xterm"},
        stdout=theirs, stderr=theirs, cwd=stack.home,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the end of a terminal
        pass
    assert done.wait(60) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


def test_open_shows_a_page_logged_in(stack, page, tmp_path):
    told = tmp_path / "told"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(told))}\n')
    browser.chmod(0o755)
    stack.extra["BROWSER"] = str(browser)
    try:
        assert stack.do("open", "mlflow")["opened"]
    finally:
        del stack.extra["BROWSER"]

    address = told.read_text().strip()
    assert address.startswith("file://")  # what other users see in the browser's command line
    page.goto(address)
    expect(page.get_by_text("Experiments").first).to_be_visible()


_CLIENTS = """
import mlflow, prefect.deployments
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    assert client.read_deployment_by_name("train/train")
run = prefect.deployments.run_deployment("train/train", parameters={"name": "x"}, timeout=120)
print(run.state.type.value)
cleanup = "pipeline-artifacts-cleanup"
run = prefect.deployments.run_deployment(f"{cleanup}/{cleanup}", timeout=120)
print("cleaned:", sorted(run.state.result()))
mlflow.set_experiment("by its own client")
with mlflow.start_run():
    mlflow.log_metric("m", 1.0)
    mlflow.log_text("hello", "greeting.txt")
"""


def test_prefects_and_mlflows_own_clients_need_what_env_prints(stack, tmp_path):
    variables = stack.do("env")
    bare = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("MODELYARD", "PREFECT", "MLFLOW"))
    } | {"HOME": str(tmp_path), "COLUMNS": "200"}  # fmt: skip
    bin_ = Path(sys.executable).parent

    def do(*command, **env):
        done = subprocess.run(
            command, env={**bare, **env}, capture_output=True, text=True, timeout=300, cwd=tmp_path
        )
        return done.returncode, done.stdout + done.stderr

    code, told = do(sys.executable, "-c", _CLIENTS, **variables)
    assert code == 0, told
    assert "FAILED" in told  # run_deployment has waited for its end
    for command, shown in (
        (("prefect", "deployment", "ls"), "train/train"),
        (("prefect", "flow-run", "ls"), "train"),
        (("mlflow", "experiments", "search"), "by its own client"),
    ):
        code, told = do(bin_ / command[0], *command[1:], **variables)
        assert (code, shown in told) == (0, True), told
    code, _ = do(
        bin_ / "prefect", "deployment", "ls", PREFECT_API_URL=variables["PREFECT_API_URL"]
    )
    assert code != 0


def test_the_credential_is_nowhere_to_be_seen(stack):
    secret = stack.credential.secret
    told = [json.dumps(stack.do("status")), json.dumps(stack.do("runs", "list"))]
    told += [path.read_text(errors="replace") for path in (stack.home / "logs").iterdir()]
    told += [" ".join(process.cmdline()) for process in stack.processes()]

    assert len(told) > 5
    assert [text for text in told if secret in text] == []


def test_without_a_login_there_is_nothing(links):
    for path in (
        "/",
        "/api/health",
        "/api/flows/filter",
        "/ui-settings",
        "/docs",
        "/openapi.json",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{links['prefect']}{path}", timeout=30)
        assert refused.value.code == 401
