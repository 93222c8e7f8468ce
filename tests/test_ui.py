"""What a person finds in MLflow's UI after the main job: a real server on a real store, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from experiment_runs import TINY, ok_with_figures, subprocess_environment, words
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ports import free_port

from experiments import experiment_page

pytest_plugins = ["experiment_fixtures"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STARTS_WITHIN = 120  # seconds, of the server
SHOWS_WITHIN = 60_000  # milliseconds, of anything on a page
ALIAS = "ajax-api/2.0/mlflow/registered-models/alias?name=widedeep&alias=champion"
WIDE = {"width": 1600, "height": 1200}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'"
    )
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass(frozen=True)
class Shown:
    """told: the address within the UI that the job ended with"""

    address: str
    told: str
    run: Run


@pytest.fixture(scope="module")
def shown(browser: Any, shared_store: MlflowClient) -> Iterator[Shown]:
    """The store after one run of the main job, behind the command that the job told to type."""
    del browser  # without one there is nothing to start
    done = ok_with_figures("main", *words(TINY | {"trials": "2"}))
    command, told = re.findall(
        r"^  see it +(.*?) +# then open http://127\.0\.0\.1:5000/(.*)$", done.out, re.M
    )[0]
    experiment = shared_store.get_experiment_by_name("widedeep")
    [run] = shared_store.search_runs([experiment.experiment_id], "tags.job = 'main'")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    few = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # without the helpers that take it long to start
    with Path("ui.log").open("w") as log:
        server = subprocess.Popen(
            f"exec {command} --port {port} --workers 1",
            shell=True,
            env=subprocess_environment(**few),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until_there(address, server)
            yield Shown(address, told, run)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)


def wait_until_there(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(Path("ui.log").read_text())


@pytest.fixture(scope="module")
def page(browser: Any, shown: Shown) -> Any:
    """One that never was here before: nothing is stored in the browser."""
    del shown
    found = browser.new_context(viewport=WIDE).new_page()
    found.set_default_timeout(SHOWS_WITHIN)
    announcement = found.get_by_role("button", name="Got it")
    found.add_locator_handler(announcement, lambda button: button.first.click())
    return found


def test_the_told_address_opens_the_runs_report(page: Any, shown: Shown) -> None:
    page.goto(f"{shown.address}/{shown.told}")
    page.get_by_role("heading", name="synthetic: NDCG@10").wait_for()
    page.get_by_text("Show more", exact=True).first.click()
    page.get_by_text("Synthetic data: made up, not real.").wait_for()
    page.get_by_role("cell", name="NDCG@10", exact=False).first.wait_for()
    assert f"experiments reproduce {shown.run.info.run_id}" in page.locator("pre").first.inner_text()
    figure = "[...document.images].find(one => one.src.includes('summary.png'))?.naturalWidth"
    page.wait_for_function(f"{figure} > 0")
    assert page.evaluate(figure) < 700  # a wider one makes all lines as wide as itself


def test_the_run_is_found_among_the_others_and_its_trials_below_it(page: Any, shown: Shown) -> None:
    page.goto(f"{shown.address}/{experiment_page.address(shown.run.info.experiment_id)}")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="main synthetic")).first
    row.wait_for()
    page.get_by_text(experiment_page.VIEW_NAME).first.wait_for()
    for column in ("ndcg_at_10", "recall_at_20"):
        page.get_by_role("columnheader", name=column, exact=True).first.wait_for()
    assert not page.get_by_role("link", name="trial 1", exact=True).count()
    row.get_by_role("button").first.click()  # unfolds it
    for trial in ("trial 1", "trial 2"):
        page.get_by_role("link", name=trial, exact=True).wait_for()
    page.get_by_role("link", name="trial 1", exact=True).click()
    page.get_by_role("heading", name="Trial 1: validation NDCG@10").wait_for()
    page.get_by_text("the settings as given").first.wait_for()


def test_its_curves_are_drawn(page: Any, shown: Shown) -> None:
    page.goto(f"{shown.address}/{of_run(shown)}/model-metrics?{experiment_page.TRAINING_VIEW}")
    page.get_by_text("ranking_ndcg_at_10", exact=True).first.wait_for()
    points = (
        "[...document.querySelectorAll('path.js-line')].map(line => line.getAttribute('d').split('L').length)"
    )
    page.wait_for_function(f"{points}.includes(6)")  # as many as there are epochs


def test_a_figure_and_the_card_are_among_its_files(page: Any, shown: Shown) -> None:
    file = "artifacts/figures/ndcg_by_model.png"
    page.goto(f"{shown.address}/{of_run(shown)}/{file}?{experiment_page.TRAINING_VIEW}")
    page.wait_for_function("[...document.images].some(one => one.naturalWidth > 900)")
    page.get_by_text("model_card.md", exact=True).first.click()
    page.get_by_role("heading", name="Model card: Wide & Deep on synthetic").wait_for()
    page.get_by_role("heading", name="What is popular, and what is not").wait_for()


def test_the_version_has_its_alias_and_its_verdict(page: Any, shown: Shown) -> None:
    page.goto(f"{shown.address}/#/models/widedeep")
    page.get_by_text("Wide & Deep recommender: which items next").wait_for()
    page.get_by_text(re.compile(r"^@\s*champion$")).first.wait_for()
    page.get_by_role("link", name="Version 1", exact=True).click()
    page.get_by_text("Gate: passed (better). There was no champion yet.").wait_for()
    page.get_by_text(re.compile(r"^@\s*champion$")).first.wait_for()
    with urllib.request.urlopen(f"{shown.address}/{ALIAS}", timeout=60) as response:
        assert b'"version": "1"' in response.read()


def of_run(shown: Shown) -> str:
    return f"#/experiments/{shown.run.info.experiment_id}/runs/{shown.run.info.run_id}"
