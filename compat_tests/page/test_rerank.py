"""Rerank on the page: a search's results in a reranker's order, by one click."""

import json

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from compat_tests.page.conftest import Visits
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway
from compat_tests.scorer import RERANKER, Scorer

QUERY = "How do I get back into my account?"  # of the sample "Five sentences"
TEXTS = [
    "I forgot my password and cannot log in.",
    "How can I reset my login credentials?",
    "The parcel arrived two days late.",
    "My delivery has been delayed again.",
    "What a beautiful sunset over the sea!",
]


@pytest.fixture
def searched(visits: Visits, reranking: Gateway) -> Visit:
    visit = visits(reranking).open().enter()
    search(visit)
    return visit


def search(visit: Visit) -> None:
    visit.page.get_by_text("Search", exact=True).click()
    visit.sample("Five sentences")
    expect(visit.page.locator(".ranking li")).to_have_count(5)


def texts_of(page: Page, card: str) -> list[str]:
    return page.locator(f".{card} li bdi").all_inner_texts()


def test_old_and_new_order_stand_side_by_side_with_the_scores(searched: Visit, scorer: Scorer) -> None:
    page = searched.page
    searched.go("Rerank these results")
    expect(page.locator(".reranking li")).to_have_count(5)
    scores = scorer.scores(QUERY, TEXTS)
    order = np.argsort(-scores, kind="stable").tolist()
    old, new = texts_of(page, "ranking"), texts_of(page, "reranking")
    assert new == [TEXTS[index] for index in order]
    assert sorted(old) == sorted(TEXTS)
    shown = [float(text) for text in page.locator(".reranking li strong").all_inner_texts()]
    assert np.abs(np.array(shown) - scores[order]).max() < 0.0006
    for rank, (text, told) in enumerate(zip(new, page.locator(".reranking .moved").all_inner_texts(), strict=True)):
        assert (f"stays {rank + 1}," if old.index(text) == rank else f"was {old.index(text) + 1},") in told
    num_tokens = scorer.num_tokens(QUERY, TEXTS)
    expect(page.locator("#rerank-summary")).to_contain_text(f"{num_tokens} tokens")
    expect(page.locator(".reranking")).to_contain_text(f"by {RERANKER}")


def test_rerankers_are_not_offered_for_pictures(searched: Visit) -> None:
    assert RERANKER not in searched.page.locator("#model option").all_inner_texts()
    searched.page.locator(".views a[href='#models']").click()
    card = searched.page.locator(".model", has_text=RERANKER)
    expect(card).to_contain_text("scores texts by a query")
    expect(card).to_contain_text("1 less the worst difference of a score from sentence-transformers")
    card.get_by_role("link", name=f"Try it: {RERANKER}").click()
    expect(searched.page.get_by_label("Look for")).to_be_visible()


def test_of_several_one_is_chosen(visits: Visits, reranking: Gateway) -> None:
    visit = visits(reranking)
    visit.with_rerankers("other", RERANKER)
    visit.open().enter()
    search(visit)
    visit.page.locator("#reranker").select_option(RERANKER)
    visit.go("Rerank these results")
    expect(visit.page.locator(".reranking li")).to_have_count(5)
    expect(visit.page.locator("#rerank-summary")).to_contain_text(RERANKER)


def test_a_late_reply_of_the_reranker_before_changes_nothing(visits: Visits, reranking: Gateway) -> None:
    visit = visits(reranking)
    visit.with_rerankers("other", RERANKER)
    visit.open().enter()
    search(visit)
    page = visit.page
    held: list[Route] = []
    page.route(
        "**/v1/rerank", lambda route: held.append(route) if route.request.post_data_json["model"] == "other" else route.continue_()
    )
    with page.expect_request("**/v1/rerank"):
        visit.go("Rerank these results")
    page.locator("#reranker").select_option(RERANKER)
    visit.go("Rerank these results")
    expect(page.locator("#rerank-summary")).to_contain_text(RERANKER)
    results = [{"index": index, "relevance_score": 0.5} for index in range(5)]
    with page.expect_event("requestfinished"):
        held[0].fulfill(json={"results": results, "usage": {"total_tokens": 1}})
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(page.locator("#rerank-summary")).to_contain_text(RERANKER)
    expect(page.locator("#rerank")).not_to_have_attribute("aria-busy", "true")


def test_without_a_reranker_it_is_explained(visit: Visit) -> None:
    visit.enter()
    search(visit)
    expect(visit.page.locator(".reranking")).to_contain_text("This gateway serves none that you can use.")
    expect(visit.page.get_by_role("button", name="Rerank these results")).to_have_count(0)


def test_trouble_stands_where_the_button_is_and_is_tried_again(searched: Visit) -> None:
    error = {"error": {"message": "Full.", "code": "server_overloaded"}}
    searched.answered("/v1/rerank", 503, json.dumps(error), retry_after="1")
    searched.go("Rerank these results")
    expect(searched.page.locator(".reranking .trouble[data-kind='busy']")).to_be_visible()
    searched.unanswered("/v1/rerank")
    searched.page.locator(".reranking").get_by_role("button", name="Try again", exact=True).click()
    expect(searched.page.locator(".reranking li")).to_have_count(5)
    expect(searched.page.locator(".reranking .trouble")).to_have_count(0)
