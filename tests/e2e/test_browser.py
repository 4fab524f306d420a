"""The Prefect UI as a person uses it: start runs from their forms, cancel one, look at them."""

import os
import re
import shutil
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.stack import ALGORITHMS, wait_for

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCREENSHOTS = os.environ.get("MODELYARD_SCREENSHOTS", "")  # a folder; without, none are taken
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(stack):
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it to test the UI")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        stack.log_in(page)
        yield page
        browser.close()


def shoot(page, name):
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS, f"{name}.png"), full_page=True)


def test_a_training_is_started_from_the_form(stack, page):
    ui = stack.link("prefect")
    form(page, ui, "train")
    expect(page.get_by_text("URI of checkpoints to start from")).to_be_visible()
    field(page, "name").fill("from the form")
    field(page, "Uri").fill(str(ALGORITHMS))
    field(page, "Entry Point").fill("steps.py")
    shoot(page, "form")
    page.get_by_role("button", name="Submit").click()
    run = stack.named("from the form", timeout=30)
    stack.wait_for_state(run, "COMPLETE")
    page.goto(f"{ui}/runs/flow-run/{run}")
    expect(page.get_by_text("Completed").first).to_be_visible()
    wait_for(lambda: shows(page, "step 3 loss"), 30, "the log's last line")
    shoot(page, "run")
    page.goto(stack.show(run)["links"]["mlflow"])
    expect(page.get_by_text("from the form").first).to_be_visible()
    expect(page.get_by_text("Finished").first).to_be_visible()
    shoot(page, "mlflow")


def deployment(page, ui, flow):
    """Open the page of a flow's deployment; its address."""
    page.goto(f"{ui}/deployments")
    links = page.locator("a[href*='/deployments/deployment/']")  # others are of its flow
    links.filter(has_text=re.compile(rf"^\s*{re.escape(flow)}\s*$")).first.click()
    page.wait_for_url(re.compile("/deployments/deployment/"))
    return page.url.partition("?")[0]


def form(page, ui, flow):
    """Open the form of a flow's deployment."""
    page.goto(f"{deployment(page, ui, flow)}/run")


def runs_tab(page, ui, flow):
    """Open the list of a deployment's runs."""
    page.goto(f"{deployment(page, ui, flow)}?tab=Runs")


def shows(page, text):
    """Whether the page, loaded anew, shows ``text``; logs arrive just after a run's end."""
    page.reload()
    page.wait_for_timeout(1500)
    return page.get_by_text(text).count() > 0


def field(page, label):
    """The text field below the label that begins with ``label``."""
    return page.locator(f"//*[starts-with(text(), '{label}')]/following::textarea[1]").first


def part(inside, label):
    """The innermost part of the form whose label begins with ``label``."""
    return inside.locator(
        f"//span[contains(@class, '__label') and starts-with(normalize-space(), '{label}')]"
        "/ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    ).first


def choose(inside, label, option):
    """Choose from a list of the form, which a key opens: it closes when a click scrolls to it."""
    part(inside, label).locator(".p-select-button__control").press("ArrowDown")
    inside.page.get_by_role("option", name=option, exact=True).click()


def number(inside, label, kind, value):
    """Give a number where there is none by default."""
    box = part(inside, label)
    box.get_by_role("button", name=kind, exact=True).click()
    box.locator("input").fill(value)


def test_a_tuning_is_started_from_the_form_and_its_trials_are_looked_at(stack, page):
    ui = stack.link("prefect")
    form(page, ui, "tune")
    expect(page.get_by_text("Time limit of one trial in minutes")).to_be_visible()
    field(page, "name").fill("tuned from the form")
    field(page, "Uri").fill(str(ALGORITHMS))
    field(page, "Entry Point").fill("trial.py")
    parameters = part(page, "parameters")
    parameters.get_by_role("button", name="Add item").click()
    part(parameters, "Name").locator("textarea").fill("x")
    choose(parameters, "Type", "double")
    number(parameters, "Min", "float", "0.25")
    number(parameters, "Max", "float", "0.75")
    metrics = part(page, "metrics")
    metrics.get_by_role("button", name="Add item").click()
    part(metrics, "Name").locator("textarea").fill("loss")
    objective = part(page, "objective")
    objective.get_by_role("button", name="Objective", exact=True).click()
    part(objective, "Metric").locator("textarea").fill("loss")
    choose(objective, "Direction", "minimize")
    number(page, "max_trials", "int", "3")
    shoot(page, "tuning-form")
    page.get_by_role("button", name="Submit").click()
    run = stack.named("tuned from the form", timeout=30)
    result = stack.wait_for_state(run, "COMPLETE")["result"]
    assert all(0.25 <= one["parameters"]["x"] <= 0.75 for one in result["trials"])
    page.goto(f"{ui}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).click()
    page.get_by_text("trials", exact=True).click()
    expect(page.get_by_role("columnheader")).to_have_text(
        ["trial", "state", "loss", "x", "seconds"]
    )
    expect(page.get_by_text("3 of 3 trials done: 3 SUCCEEDED.")).to_be_visible()
    shoot(page, "tuning-trials")
    page.goto(stack.show(run)["links"]["mlflow"])
    expect(page.get_by_text("trial 2", exact=True)).to_be_visible()
    shoot(page, "tuning-mlflow")
    runs_tab(page, ui, "tune")
    expect(page.get_by_text("tuned from the form").first).to_be_visible()
    shoot(page, "tuning-runs-tab")


REFUSED = """
from flows.connection import connected
from registry.runs import runs
asked = {"name": "refused in the tab", "algorithm": {"uri": "/nowhere", "entry_point": "a.py"}}
with connected():
    print(runs.submit("train", asked, "refused in the tab", "me", checked=False))
"""


def test_the_runs_tab_of_a_deployment_shows_runs_that_failed(stack, page):
    ui = stack.link("prefect")
    failed = stack.start("fails", name="failed in the tab")
    refused = stack.execute(REFUSED).strip()
    stack.wait_for_state(failed, "FAIL TRAIN")
    stack.wait_for_state(refused, "CREATE FAILED")
    runs_tab(page, ui, "train")
    for name in ("failed in the tab", "refused in the tab"):
        expect(page.get_by_text(name).first).to_be_visible()
    shoot(page, "runs-tab")


def test_an_uploaded_pipeline_is_started_from_its_form(stack, page):
    ui = stack.link("prefect")
    shown = stack.do("pipeline", "upload", EXAMPLES / "pipelines" / "hello.yaml")
    assert shown["state"] == "ACTIVE"
    form(page, ui, "hello:1")
    expect(page.get_by_text("The pipeline's own inputs.")).to_be_visible()
    field(page, "recipient").fill("you")
    field(page, "name").fill("greeted from the form")
    shoot(page, "pipeline-form")
    page.get_by_role("button", name="Submit").click()
    run = stack.named("greeted from the form", timeout=30)
    found = stack.wait_for_state(run, "COMPLETE")
    assert found["result"]["outputs"] == {"Output": "Hello, you!"}
    assert found["parameters"]["pipeline"] == "hello:1"
    page.goto(f"{ui}/runs/flow-run/{run}")
    expect(page.get_by_text("say-hello").first).to_be_visible()
    shoot(page, "pipeline-run")
    assert stack.do("pipeline", "delete", "hello")["deleted"]


def test_cancel_in_the_ui_ends_a_script_that_ignores_sigterm(stack, page):
    ui = stack.link("prefect")
    run = stack.start("stubborn")
    log = stack.home / "runs" / run / "train.log"
    found = wait_for(
        lambda: re.search(r"pids (\d+) (\d+)\n", log.read_text()) if log.exists() else None,
        30,
        "the script",
    )
    pids = [int(pid) for pid in found.groups()]
    page.goto(f"{ui}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel").first.click()
    shoot(page, "cancel")
    page.get_by_role("button", name="Confirm").click()
    wait_for(lambda: not any(map(psutil.pid_exists, pids)), 10, "the script to be gone")
    stack.wait_for_state(run, "STOPPED")
