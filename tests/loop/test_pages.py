"""The pages show the run that was just made, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect


@pytest.fixture
def page(browser):
    made = browser.new_page(viewport={"width": 1400, "height": 1000})
    made.set_default_timeout(30_000)
    yield made
    made.close()


def see(page, *texts):
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)


def test_mlflow_shows_the_generations_with_families_nested(page, loop):
    page.goto(f"{loop.urls['mlflow']}/#/experiments/1/runs")
    see(page, "credit generation, child of version 1")


def test_mlflow_shows_the_version_with_parent_decision_and_reasons(page, loop):
    page.goto(f"{loop.urls['mlflow']}/#/models/credit/versions/2")
    see(
        page,
        "Loan applications: version 2",
        "non_inferior_to_champion",
        "version 1",
        loop.summary["generations"][1]["snapshot"],
        "champion",
    )


def test_prefect_shows_the_retraining_its_logs_and_its_automation(page, loop):
    page.goto(f"{loop.urls['prefect']}/runs/flow-run/{loop.summary['retrain']['flow_run_id']}")
    see(page, "retrain for decision", "Completed", "Retrain credit when its monitor asks for it", "asked for by decision")
    page.goto(f"{loop.urls['prefect']}/automations")
    see(page, "Retrain credit when its monitor asks for it")


def test_prefect_shows_the_decision_as_an_artifact(page, loop):
    page.goto(f"{loop.urls['prefect']}/artifacts/key/credit-decision")
    see(page, "version 2")


def test_the_openapi_page_shows_the_contract_without_the_internet(page, loop):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{loop.urls['service']}/docs")
    see(page, "Will this loan not be paid back?", "/predict", "/feedback", "CreditRecord")
    assert all(url.startswith((loop.urls["service"], "data:")) for url in asked)


def test_the_report_fits_a_wide_and_a_narrow_window(page, loop):
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    for width in (1400, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto((loop.reports / "index.html").as_uri())
        see(page, "What happened", "Errors, example by example", loop.summary["retrain"]["event_id"])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
