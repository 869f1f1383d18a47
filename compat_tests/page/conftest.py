"""A gateway whose live figures this machine may see, one of its models with a hostile name; a browser; visits."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from compat_tests.chromium import FLAGS, chromium_or_skip
from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.page.visit import Visit
from compat_tests.process import FLOAT32_ROW, Gateway

HOSTILE_NAME = """<img src=x onerror=alert(1)>'"${alert(2)}"""
HOSTILE_ROW = {**FLOAT32_ROW, "name": HOSTILE_NAME, "aliases": ["<script>alert(3)</script>"]}

Visits = Callable[..., Visit]


@pytest.fixture(scope="session")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(
        tmp_path_factory.mktemp("paged"),
        GATEWAY_API_KEYS=ENVIRONMENT_KEY,
        GATEWAY__MODELS=json.dumps([FLOAT32_ROW, HOSTILE_ROW]),
        GATEWAY__PAGE__LIVE="loopback",
    )
    with running(made) as gateway:
        yield gateway
        gateway.stop()
    assert ENVIRONMENT_KEY not in gateway.log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module: while it lives Playwright's own event loop runs in this thread, and asynchronous tests could not."""
    path = chromium_or_skip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visits(browser: Browser) -> Iterator[Visits]:
    """Makes visits, each with a profile of its own; afterwards only the gateway may have been asked, and nobody complained."""
    made: list[Visit] = []

    def visit(gateway: Gateway, *, width: int = 1280, scheme: str = "light", touch: bool = False) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch, is_mobile=touch,
            permissions=["clipboard-read", "clipboard-write"],
        )  # fmt: skip
        context.set_default_timeout(20_000)
        made.append(Visit(context.new_page(), gateway.origin, ENVIRONMENT_KEY))
        return made[-1]

    yield visit
    for each in made:
        each.page.context.close()
        assert [url for url in each.asked if not url.startswith(f"{each.origin}/")] == []
        assert [
            said for said in each.complaints if not said.startswith("Failed to load resource")
        ] == []  # a status, shown by the page


@pytest.fixture
def visit(visits: Visits, paged: Gateway) -> Visit:
    """At the page, without a key yet."""
    return visits(paged).open()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = Path(__file__).parent / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
