"""A real Chromium in front of the real application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    APIResponse,
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    StorageState,
    expect,
    sync_playwright,
)

from modelyard.ports import free_port
from tests.e2e.dashboard_server import EMAIL, PASSWORD, Dashboard
from tests.services import RedisService, wait_for

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 30_000  # generous: other tests may keep the machine busy


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(
            executable_path=chromium_path, args=CHROMIUM_OPTIONS, timeout=4 * PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    home = tmp_path_factory.mktemp("dashboard")
    redis = RedisService(home / "redis")
    redis.start()
    dashboard = Dashboard(home, redis_url=redis.url)
    dashboard.prepare()
    dashboard.start()
    yield dashboard
    dashboard.stop()
    redis.stop()


@pytest.fixture(scope="module")
def dashboard(_dashboard: Dashboard) -> Dashboard:
    """An instance with a person who may log in; each test makes projects of its own."""
    _dashboard.forget()
    return _dashboard


@pytest.fixture
def dashboard_without_broker(tmp_path: Path) -> Iterator[Dashboard]:
    """An instance whose Redis is not there."""
    dashboard = Dashboard(tmp_path / "home", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    dashboard.prepare()
    dashboard.start()
    yield dashboard
    dashboard.stop()


class Watch:
    """What a page must not do: complain in its console, or fetch from elsewhere."""

    def __init__(self, origin: str) -> None:
        self._origin = urlsplit(origin).netloc
        self.complaints: list[str] = []
        self.outside: list[str] = []

    def follow(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        # A refused request is reported here too; those a test provokes, it takes out again.
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._origin:
            self.outside.append(url)


@pytest.fixture
def watch(dashboard: Dashboard) -> Iterator[Watch]:
    watch = Watch(dashboard.url)
    yield watch
    assert watch.complaints == []
    assert watch.outside == []


@pytest.fixture
def context(browser: Browser, dashboard: Dashboard) -> Iterator[BrowserContext]:
    context = browser.new_context(
        base_url=dashboard.url, viewport={"width": 1360, "height": 850}, color_scheme="light"
    )
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def visitor(context: BrowserContext, watch: Watch) -> Page:
    """A page of somebody who is not logged in."""
    page = context.new_page()
    watch.follow(page)
    return page


@pytest.fixture(scope="session")
def login(browser: Browser, _dashboard: Dashboard) -> StorageState:
    """The cookies of a login; a test that ends it needs one of its own."""
    with browser.new_context(base_url=_dashboard.url) as context:
        page = context.new_page()
        log_in(page)
        page.wait_for_url("/")
        return context.storage_state()


@pytest.fixture
def page(context: BrowserContext, visitor: Page, login: StorageState) -> Page:
    """The projects' page of somebody who is logged in."""
    context.add_cookies(login["cookies"])
    visitor.goto("/")
    return visitor


def log_in(page: Page, *, email: str = EMAIL, password: str = PASSWORD, at: str = "") -> None:
    page.goto(f"{at}/login")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in").click()


@contextmanager
def held_back(page: Page, script: str) -> Iterator[None]:
    """Of the page that is shown meanwhile, one script comes only at the end."""
    held: list[Route] = []
    page.route(f"**/js/{script}", lambda route: held.append(route))
    yield
    wait_for(lambda: page.evaluate("document.readyState") == "interactive" and held, what=script)
    for route in held:
        route.continue_()
    page.unroute(f"**/js/{script}")


@contextmanager
def late_answer(page: Page, url: str) -> Iterator[Callable[[], None]]:
    """Let the page have the server's answers from an address only at the end.

    What is yielded waits until there is one.
    """
    held: list[tuple[Route, APIResponse]] = []
    page.route(url, lambda route: held.append((route, route.fetch())))

    def wait() -> None:
        wait_for(lambda: page.evaluate("true") and held, what=f"an answer from {url}")

    yield wait
    wait()
    for route, response in held:
        route.fulfill(response=response)
    page.unroute(url)
