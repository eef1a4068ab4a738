"""Swagger UI in a real browser: it works without the network, and what it starts is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import KEY, PREFIX, ServerMaker

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path(os.environ.get("DURABLE_TEST_CHROMIUM", "/usr/bin/chromium"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


def watched_page(browser: Any, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A page, the addresses it asks for, and what its console complains about."""
    page = browser.new_page(viewport={"width": 1280, "height": 1600}, **options)
    addresses: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, addresses, complaints


def strangers(addresses: list[str], base: str) -> list[str]:
    return [address for address in addresses if urlsplit(address).netloc != urlsplit(base).netloc and not address.startswith("data:")]


def try_out(page: Any, body: str) -> str:
    """Start an orchestration by "Try it out"; returns the text of the answer."""
    operation = page.locator("#operations-durable-startOrchestration")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("tr[data-param-name=orchestratorName] select").select_option("waiter")
    operation.locator("textarea.body-param__text").fill(body)
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    answer.locator(".response-col_status", has_text="202").wait_for()
    return str(answer.inner_text())


def test_try_it_out_starts_an_orchestration_and_no_request_leaves_the_host(start_server: ServerMaker, browser: Any, tmp_path: Path) -> None:
    base = start_server()
    page, addresses, complaints = watched_page(browser)

    page.goto(f"{base}{PREFIX}/docs")
    page.locator("#operations-durable-getInstance").wait_for()
    page.screenshot(path=str(tmp_path / "swagger.png"))
    answer = try_out(page, '{"input": {"orderId": "123"}, "instanceId": "from-the-browser"}')
    page.screenshot(path=str(tmp_path / "started.png"), full_page=True)

    assert '"instanceId": "from-the-browser"' in answer
    status = page.request.get(f"{base}{PREFIX}/from-the-browser").json()
    assert (status["name"], status["input"]) == ("waiter", {"orderId": "123"})
    assert strangers(addresses, base) == []
    assert complaints == []


def test_with_keys_a_person_logs_in_and_authorizes_the_page(start_server: ServerMaker, browser: Any) -> None:
    base = start_server(KEY)
    page, addresses, _ = watched_page(browser, http_credentials={"username": "me", "password": KEY})

    page.goto(f"{base}{PREFIX}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container", has_text="DurableApiKey").locator("input").fill(KEY)
    page.locator(".auth-container", has_text="DurableApiKey").get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()

    assert '"instanceId"' in try_out(page, "{}")
    assert strangers(addresses, base) == []


def test_behind_a_proxy_that_takes_a_prefix_off_the_page_still_works(start_server: ServerMaker, browser: Any) -> None:
    base = start_server()
    page, addresses, complaints = watched_page(browser)

    def without_prefix(route: Any) -> None:
        answer = route.fetch(url=route.request.url.replace("/mounted/here/", "/"))
        route.fulfill(response=answer)

    page.route("**/mounted/here/**", without_prefix)
    page.goto(f"{base}/mounted/here{PREFIX}/docs")

    assert '"instanceId"' in try_out(page, "{}")
    assert addresses[-1].startswith(f"{base}/mounted/here{PREFIX}/start/waiter")
    assert complaints == []
