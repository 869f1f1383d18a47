"""axe finds nothing on any view, in either colour scheme; and what it cannot see."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from compat_tests.chromium import skip_or_fail
from compat_tests.page.conftest import Visits
from compat_tests.page.visit import Visit
from compat_tests.process import ROOT, Gateway

AXE = ROOT / "compat_tests/node/node_modules/axe-core/axe.min.js"
MIN_TARGET_PIXELS = 24  # WCAG 2.2, 2.5.8
SCHEMES = ["light", "dark"]


def no_key(visit: Visit) -> None:
    pass


def wrong_key(visit: Visit) -> None:
    visit.try_key("sk-gw-wrong-key-of-somebody-else")
    visit.trouble("wrong-key")


def compared(visit: Visit) -> None:
    visit.enter().sample("Five sentences")
    expect(visit.page.locator(".heat")).to_be_visible()
    visit.page.get_by_text("As a table").click()


def many(visit: Visit) -> None:
    visit.enter().sample("Two hundred")
    expect(visit.page.locator(".heat")).to_be_visible()


def searched(visit: Visit) -> None:
    visit.enter().page.get_by_text("Search", exact=True).click()
    visit.sample("Four topics")
    expect(visit.page.locator(".ranking")).to_be_visible()


def reranked(visit: Visit) -> None:
    visit.with_rerankers("one", "two")
    results = [{"index": index, "relevance_score": 1 / (2 + index)} for index in (3, 0, 1, 4, 2)]
    visit.answered("/v1/rerank", 200, json.dumps({"results": results, "usage": {"total_tokens": 5}}))
    visit.enter().page.get_by_text("Search", exact=True).click()
    visit.sample("Five sentences")
    visit.go("Rerank these results")
    expect(visit.page.locator(".reranking li")).to_have_count(5)


def limited(visit: Visit) -> None:
    visit.enter().answered("/v1/embeddings", 429, json.dumps({"error": {"message": "Rate limit reached."}}), retry_after="30")
    visit.go("Compare these texts")
    visit.trouble("limit")


def view(name: str) -> Callable[[Visit], None]:
    def turn(visit: Visit) -> None:
        visit.enter().page.locator(f".views a[href='#{name}']").click()
        expect(visit.page.locator(f"#view-{name} .card").first).to_be_visible()

    return turn


def batches(visit: Visit) -> None:
    counts = {"total": 9, "completed": 3, "failed": 1}
    batch = {"endpoint": "/v1/embeddings", "model": "m", "created_at": 1, "metadata": None, "usage": {"total_tokens": 5}}
    batch |= {"request_counts": counts, "output_file_id": "a", "error_file_id": "b"}
    errors = {"data": [{"code": "invalid_url", "message": "Not this.", "line": 3}]}
    data = [
        {**batch, "id": f"batch_{status}", "status": status, "errors": each}
        for status, each in {"in_progress": None, "completed": None, "failed": errors, "cancelled": None}.items()
    ]
    visit.answered("/v1/batches?limit=20", 200, json.dumps({"data": data, "has_more": True, "last_id": "x"}))
    visit.enter().page.locator(".views a[href='#batches']").click()
    expect(visit.page.locator(".batch")).to_have_count(4)


STATES = {
    "no key": no_key, "wrong key": wrong_key, "compared": compared, "many": many, "searched": searched, "reranked": reranked,
    "limited": limited, "use": view("use"), "models": view("models"), "batches": batches, "now": view("now"),
}  # fmt: skip


def violations(page: Page) -> list[str]:
    """Of any weight. axe is evaluated by the browser's own tools, which the page's policy does not bind."""
    page.evaluate(f"{AXE.read_text(encoding='utf-8')}; undefined")
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [f"{each['impact']} {each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(visits: Visits, paged: Gateway, state: str, scheme: str) -> None:
    if not AXE.is_file():
        skip_or_fail("axe-core is not installed: `npm ci` in compat_tests/node")
    visit = visits(paged, scheme=scheme).open()
    STATES[state](visit)
    assert violations(visit.page) == []


@pytest.mark.parametrize("state", STATES)
def test_a_phone_shows_all_of_it_without_scrolling_sideways_and_a_finger_hits_it(
    visits: Visits, paged: Gateway, state: str
) -> None:
    visit = visits(paged, width=360, touch=True).open()
    STATES[state](visit)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    small = visit.page.evaluate(
        """(least) => [...document.querySelectorAll("button, select, input:not([type=radio]), textarea, .views a, summary")]
            .filter((node) => node.checkVisibility() && (node.clientHeight < least || node.clientWidth < least))
            .map((node) => node.outerHTML.slice(0, 100))""",
        MIN_TARGET_PIXELS,
    )
    assert small == []
