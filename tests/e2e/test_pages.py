"""Modelyard's own pages in a browser: the graph of a run that goes on, and what it has made."""

import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kfp import dsl
from playwright.sync_api import expect

from tests.e2e import test_browser
from tests.e2e.stack import kill, wait_for
from tests.e2e.test_pipelines import written
from tests.pipelines.corpus.components import IMAGE

pytestmark = pytest.mark.e2e
page = test_browser.page


@dsl.component(base_image=IMAGE)
def make(rows: int, table: dsl.Output[dsl.Dataset]):
    import pathlib

    pathlib.Path(table.path).write_text("x,y\n" * rows)
    table.metadata["rows"] = rows


@dsl.component(base_image=IMAGE)
def wait(number: int, gate: str, table: dsl.Input[dsl.Dataset]) -> int:
    import pathlib
    import time

    while not pathlib.Path(gate).exists():
        time.sleep(0.1)
    return number


@dsl.pipeline(name="followed")
def followed(gate: str):
    made = make(rows=3)
    with dsl.ParallelFor([1, 2, 3]) as number:
        wait(number=number, gate=gate, table=made.outputs["table"])


def check_whole(page):
    """Check that nothing of the page is beside the screen, on a phone and on a desk."""
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        test_browser.shoot(page, f"home-{width}")


def test_a_run_is_followed_and_an_artifact_is_downloaded(stack, page, tmp_path):
    gate = tmp_path / "gate"
    run = stack.do(
        "run", "pipeline-run", "-p", f"pipeline={written(tmp_path, followed)}",
        "-p", f"arguments.gate={gate}", "-p", "name=followed in the browser",
    )["flow_run_id"]  # fmt: skip
    try:
        wait_for(lambda: stack.ask("pipeline", "graph", run).code == 0, 30, "the graph")
        told = []
        page.on("console", lambda line: told.append(line.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        web = stack.link("web")
        stack.log_in(page)
        page.goto(web)
        check_whole(page)
        page.get_by_role("link", name="followed in the browser", exact=True).click()
        assert page.url == stack.do("pipeline", "graph", run)["page"]

        standing, details = page.locator("#standing"), page.locator("#details")
        expect(standing.get_by_text("RUNNING", exact=True)).to_be_visible()
        expect(standing.get_by_text("3 running")).to_be_visible()  # it has looked again
        page.locator('#graph [data-path="make"]').click()
        expect(details.get_by_role("heading", name="make")).to_be_visible()
        expect(details.get_by_text("Succeeded")).to_be_visible()
        expect(page.locator("#graph .chosen")).to_have_count(1)
        test_browser.shoot(page, "graph-running")

        kill(stack.parts()["web"]["pid"])  # what is asked meanwhile waits for the next one
        gate.touch()
        stack.wait_for_state(run, "COMPLETE")
        expect(standing.get_by_text("COMPLETE", exact=True)).to_be_visible()
        expect(standing.get_by_text("4 succeeded")).to_be_visible()
        expect(details.get_by_role("heading", name="make")).to_be_visible()  # still chosen
        expect(page.locator('#graph .chosen [data-path="make"]')).to_have_count(1)

        with page.expect_download() as begun:
            details.get_by_role("link", name="Download table").click()
        assert begun.value.suggested_filename == "make-table"
        assert Path(begun.value.path()).read_text() == "x,y\n" * 3
        test_browser.shoot(page, "graph")

        with page.context.expect_page() as opened:
            details.get_by_role("link", name="Task and log in Prefect").click()
        expect(opened.value.get_by_text("make").first).to_be_visible()
        opened.value.close()
        page.go_back()
        expect(details.get_by_role("heading", name="followed", exact=True)).to_be_visible()
        details.get_by_role("link", name="Metrics in MLflow").wait_for()
        page.locator('#graph [data-path^="for-loop-"]').first.click()
        details.get_by_role("link", name="[2]").click()
        expect(details.get_by_role("heading", name="[2]")).to_be_visible()
        assert told == []
    finally:
        gate.touch()


def test_a_page_of_another_host_reads_nothing(stack):
    web = stack.link("web")
    asked = urllib.request.Request(web, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.urlopen(asked)
    assert refused.value.code == 403


def test_while_it_starts_again_nobody_is_refused(stack):
    web = stack.link("web")
    over, answers = threading.Event(), []

    def ask():
        while not over.is_set():
            try:
                with stack.urlopen(f"{web}/ready", timeout=60) as answer:
                    answers.append(answer.status)
            except urllib.error.URLError as error:
                answers.append(error.reason)
            except OSError as error:
                answers.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        before = stack.parts()["web"]
        wait_for(lambda: len(answers) > 5, 30, "answers")
        kill(before["pid"])
        wait_for(
            lambda: stack.ask("status").code == 0
            and stack.parts()["web"]["restarts"] > before["restarts"],
            60, "the pages to come back",
        )  # fmt: skip
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 5, 30, "answers of the new one")
    finally:
        over.set()
        asking.join()
    refused = [one for one in answers if isinstance(one, ConnectionRefusedError)]
    assert refused == []
    assert answers.count(200) >= len(answers) - 1  # what it was just answering is lost
