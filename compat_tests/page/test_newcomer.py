"""The first minute on the page, and what it keeps to itself."""

from pathlib import Path

import numpy as np
from playwright.sync_api import expect

from compat_tests.conftest import running
from compat_tests.page.conftest import Visits
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway
from compat_tests.truth import Truth

FIVE = [
    "The cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "Interest rates rose again.",
    "The bank made borrowing dearer.",
    "Tomatoes grow best in the sun.",
]
SECRETS = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, history.state])"


def test_a_newcomer_has_a_picture_of_five_sentences(visit: Visit, truth: Truth) -> None:
    visit.enter().compare(*FIVE)
    rows = truth.vectors(FIVE)
    expected = rows @ rows.T
    page = visit.page
    expect(page.locator(".nearest li")).to_have_count(6)
    first = page.locator(".nearest li").first
    assert FIVE[0] in first.inner_text()
    assert FIVE[1] in first.inner_text()
    assert first.locator(".score").inner_text() == f"{expected[0, 1]:.2f}"
    page.get_by_text("As a table").click()
    shown = [[float(cell.replace("−", "-")) for cell in row] for row in table_of(page)]
    assert np.abs(np.array(shown) - expected).max() < 0.0051
    assert [visit.fact(name) for name in ("Texts", "Numbers a text", "Vector length")] == ["5", "384", "1.000"]
    expect(page.locator(".made-by")).to_contain_text("By all-MiniLM-L6-v2, fingerprint ")
    assert visit.fact("Tokens") == str(truth.num_tokens(*FIVE))


def table_of(page) -> list[list[str]]:  # type: ignore[no-untyped-def]
    rows = page.locator(".as-table tbody tr")
    return [rows.nth(index).locator("td").all_inner_texts() for index in range(rows.count())]


def test_whoever_presses_the_button_first_is_asked_for_the_key_and_then_served(visit: Visit) -> None:
    visit.go("Compare these texts")
    expect(visit.page.get_by_label("API key", exact=True)).to_be_focused()
    visit.enter()
    expect(visit.page.locator(".heat")).to_be_visible()


def test_what_was_embedded_before_is_told_to_come_from_the_cache(visit: Visit) -> None:
    texts = [f"{text} Once more." for text in FIVE]
    visit.enter().compare(*texts)
    assert visit.fact("From the cache") == "0 of 5"
    with visit.page.expect_response("**/v1/embeddings"):
        visit.go("Compare these texts")
    expect(visit.page.locator(".facts")).to_contain_text("5 of 5")


def test_blocks_of_several_lines_are_texts_too(visit: Visit) -> None:
    visit.enter()
    visit.page.get_by_label("One text is").select_option("block")
    visit.compare("one\nof two lines\n\n\n", "another\nof two")
    assert visit.fact("Texts") == "2"


def test_a_search_ranks_the_answers(visit: Visit) -> None:
    visit.enter()
    visit.page.get_by_text("Search", exact=True).click()
    visit.sample("Four topics")
    expect(visit.page.locator(".ranking li")).to_have_count(16)
    scores = [float(text.replace("−", "-")) for text in visit.page.locator(".ranking li strong").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert "batter" in visit.page.locator(".ranking li").first.inner_text()


def test_a_search_says_which_texts_are_the_query_and_which_the_documents(visit: Visit) -> None:
    visit.enter()
    visit.page.get_by_text("Search", exact=True).click()
    sent: list[str] = []
    visit.page.on("request", lambda request: sent.append(request.post_data or ""))
    visit.sample("Five sentences")
    expect(visit.page.locator(".ranking")).to_be_visible()
    assert sorted("query" if '"input_type":"query"' in body else "document" for body in sent) == ["document", "query"]


def test_two_hundred_texts_can_be_pointed_at_one_by_one(visit: Visit) -> None:
    visit.enter().sample("Two hundred")
    expect(visit.page.get_by_label("Order")).to_have_value("alike")
    visit.page.locator(".heat-box").scroll_into_view_if_needed()
    box = visit.page.locator(".heat-box").bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + box["width"] * 0.251, box["y"] + box["height"] * 0.75)
    expect(visit.page.locator(".readout-texts p")).to_have_count(2)
    visit.page.locator(".map .dot").nth(120).dispatch_event("pointerenter")
    expect(visit.page.locator(".tip")).to_contain_text("121")
    expect(visit.page.locator(".links line")).to_have_count(3)


def test_more_texts_than_a_picture_holds_are_not_sent(visit: Visit) -> None:
    visit.enter()
    visit.page.get_by_label("Texts", exact=True).fill("\n".join(f"text {number}" for number in range(501)))
    visit.go("Compare these texts")
    assert "501 texts" in visit.trouble("unfit").inner_text()
    assert not [url for url in visit.asked if url.endswith("/v1/embeddings")]


def test_the_key_is_in_the_memory_of_the_tab_alone(visit: Visit) -> None:
    visit.enter().compare(*FIVE)
    page = visit.page
    kept = page.evaluate(SECRETS) + page.content() + str(page.context.cookies()) + str(page.context.storage_state(indexed_db=True))
    assert visit.key not in kept
    assert FIVE[2] not in page.evaluate(SECRETS)
    assert page.evaluate("() => caches.keys()") == []
    assert visit.key not in "".join(visit.asked)
    page.reload()
    expect(page.get_by_label("API key", exact=True)).to_have_value("")
    expect(page.locator("#model")).to_be_disabled()


def test_a_key_can_be_forgotten(visit: Visit) -> None:
    visit.enter()
    visit.page.locator("#key-button").click()
    visit.go("Forget it")
    expect(visit.page.locator("#key-button")).to_have_text("Enter key")
    expect(visit.page.locator("#model")).to_be_disabled()


def test_where_no_key_is_needed_none_is_asked_for(visits: Visits, tmp_path: Path) -> None:
    with running(Gateway(tmp_path, GATEWAY__AUTH__MODE="none")) as gateway:
        visit = visits(gateway).open()
        expect(visit.page.locator("#key-card")).to_be_hidden()
        visit.compare(*FIVE)
        assert visit.fact("Texts") == "5"


def test_nothing_moves_while_the_page_is_built(visits: Visits, paged: Gateway) -> None:
    for width in (360, 768, 1440):
        visit = visits(paged, width=width)
        visit.page.add_init_script(
            "window.moved = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput)"
            " window.moved += e.value; }).observe({type: 'layout-shift', buffered: true});"
        )
        visit.open()
        visit.page.wait_for_load_state("networkidle")
        assert visit.page.evaluate("window.moved") < 0.01
