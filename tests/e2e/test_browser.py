"""The Prefect UI as a person uses it: start a training from its form, cancel one, look at both."""

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
SCREENSHOTS = Path(os.environ.get("MODELYARD_SCREENSHOTS", "/tmp/modelyard-screenshots"))
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it to test the UI")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield page
        browser.close()


def shoot(page, name):
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_a_training_is_started_from_the_form(stack, page):
    ui = stack.do("status")["links"]["prefect"]
    page.goto(f"{ui}/deployments")
    page.get_by_role("link", name="train").first.click()
    page.wait_for_url(re.compile("/deployments/deployment/"))
    page.goto(f"{page.url.partition('?')[0]}/run")
    expect(page.get_by_text("Checkpoints to begin from.")).to_be_visible()
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


def shows(page, text):
    """Whether the page, loaded anew, shows ``text``; logs arrive just after a run's end."""
    page.reload()
    page.wait_for_timeout(1500)
    return page.get_by_text(text).count() > 0


def field(page, label):
    """The text field below the label that begins with ``label``."""
    return page.locator(f"//*[starts-with(text(), '{label}')]/following::textarea[1]").first


def test_cancel_in_the_ui_ends_a_script_that_ignores_sigterm(stack, page):
    ui = stack.do("status")["links"]["prefect"]
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
