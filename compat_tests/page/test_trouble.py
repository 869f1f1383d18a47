"""Each error state says what to do, and what the person had written is still there afterwards."""

import json
import re

import pytest
from playwright.sync_api import expect

from compat_tests.page.conftest import Visits
from compat_tests.page.visit import Visit
from compat_tests.standin import OUT_OF_QUOTA, OVERLOADED, RATE_LIMITED, Canned
from compat_tests.waiting import until

EMBEDDINGS = "/v1/embeddings"
TEXTS = ["one text of mine", "another text of mine"]
LOADING = Canned(503, "The model is still loading.", "server_error", "model_loading", {"Retry-After": "1"})
BROKEN = Canned(500, "The server had an error while processing your request.", "server_error", "internal_error")


def say(visit: Visit, canned: Canned, **headers: str) -> None:
    told = {name.lower().replace("-", "_"): value for name, value in canned.headers.items()}
    visit.answered(EMBEDDINGS, canned.status, canned.body.decode(), **{**told, **headers})


@pytest.fixture
def asked(visit: Visit) -> Visit:
    """With a key, and texts of its own pasted."""
    visit.enter()
    visit.page.get_by_label("Texts", exact=True).fill("\n".join(TEXTS))
    return visit


def recovers(visit: Visit) -> None:
    visit.unanswered(EMBEDDINGS)
    visit.go("Try again")
    expect(visit.page.locator(".heat")).to_be_visible()
    expect(visit.page.locator(".trouble")).to_have_count(0)
    expect(visit.page.get_by_label("Texts", exact=True)).to_have_value("\n".join(TEXTS))


def test_no_key(visit: Visit) -> None:
    visit.go("Compare these texts")
    expect(visit.page.locator("#key-card")).to_contain_text("gateway keys create")
    expect(visit.page.get_by_label("API key", exact=True)).to_be_focused()


def test_a_wrong_key(visit: Visit) -> None:
    visit.try_key("sk-gw-wrong-key-of-somebody-else")
    assert "gateway keys create" in visit.trouble("wrong-key").inner_text()
    expect(visit.page.get_by_label("API key", exact=True)).to_be_focused()
    visit.enter()
    expect(visit.page.locator(".trouble")).to_have_count(0)


def test_a_wrong_key_does_not_take_the_place_of_a_good_one(asked: Visit) -> None:
    asked.page.locator("#key-button").click()
    asked.try_key("sk-gw-wrong-key-of-somebody-else")
    asked.trouble("wrong-key")
    asked.go("Compare these texts")
    expect(asked.page.locator(".heat")).to_be_visible()


def test_a_key_that_is_revoked_meanwhile_is_asked_for_again(asked: Visit) -> None:
    say(asked, Canned(401, "Incorrect API key provided: ***.", "invalid_request_error", "invalid_api_key"))
    asked.go("Compare these texts")
    expect(asked.page.locator("#key-card")).to_be_visible()
    asked.unanswered(EMBEDDINGS)
    asked.enter()
    expect(asked.page.locator(".heat")).to_be_visible()


def test_429_counts_the_seconds_down(asked: Visit) -> None:
    say(asked, RATE_LIMITED, retry_after="3")
    asked.go("Compare these texts")
    shown = asked.trouble("limit")
    assert "Rate limit reached" in shown.inner_text()
    button = shown.get_by_role("button")
    expect(button).to_be_disabled()
    seen: list[int] = []

    def is_over() -> bool:
        found = re.search(r"in (\d+) s", button.inner_text())
        if found and int(found[1]) not in seen:
            seen.append(int(found[1]))
        return found is None

    until(is_over, seconds=20, what="the end of the countdown")
    assert seen == sorted(seen, reverse=True)
    assert len(seen) >= 2
    expect(button).to_be_enabled()
    recovers(asked)


def test_a_spent_budget_is_not_tried_again(asked: Visit) -> None:
    say(asked, OUT_OF_QUOTA)
    asked.go("Compare these texts")
    shown = asked.trouble("quota")
    assert "Ask whoever runs this server" in shown.inner_text()
    expect(shown.get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize(("canned", "kind"), [(OVERLOADED, "busy"), (LOADING, "loading")])
def test_503_is_tried_again(asked: Visit, canned: Canned, kind: str) -> None:
    say(asked, canned)
    asked.go("Compare these texts")
    expect(asked.trouble(kind).get_by_role("button")).to_be_enabled()
    recovers(asked)


def test_a_fault_of_the_server_tells_the_request_to_look_for(asked: Visit) -> None:
    say(asked, BROKEN, x_request_id="req_0123")
    asked.go("Compare these texts")
    assert "req_0123" in asked.trouble("broken").inner_text()
    recovers(asked)


def test_a_proxy_that_answers_in_html_is_no_riddle(asked: Visit) -> None:
    asked.answered(EMBEDDINGS, 502, "<h1>Bad Gateway</h1>", content_type="text/html")
    asked.go("Compare these texts")
    assert "502" in asked.trouble("broken").inner_text()


def test_what_the_server_does_not_accept_is_told_in_its_words(asked: Visit) -> None:
    asked.page.get_by_label("Texts", exact=True).fill("a " * 20_000 + "\nb")
    asked.go("Compare these texts")
    assert "maximum input length is" in asked.trouble("refused").inner_text()


def test_offline(asked: Visit) -> None:
    asked.page.context.set_offline(True)
    asked.go("Compare these texts")
    assert "Is it still running" in asked.trouble("offline").inner_text()
    asked.page.context.set_offline(False)
    recovers(asked)


def test_a_server_that_is_gone_and_comes_back(visits: Visits, own_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = own_gateway()
    gateway.start()
    gateway.wait_until_ready()
    visit = visits(gateway).open().enter()
    visit.page.get_by_label("Texts", exact=True).fill("\n".join(TEXTS))
    gateway.stop()
    visit.go("Compare these texts")
    visit.trouble("offline")
    gateway.start()
    gateway.wait_until_ready()
    recovers(visit)


def test_a_model_that_is_loading_becomes_ready_under_ones_eyes(visit: Visit) -> None:
    loading = {"id": "m", "object": "model", "created": 0, "owned_by": "x", "state": "loading"}
    visit.answered("/v1/models", 200, json.dumps({"object": "list", "data": [loading]}))
    visit.enter()
    expect(visit.page.locator("#model")).to_contain_text("m (loading)")
    visit.unanswered("/v1/models")
    expect(visit.page.locator("#model")).not_to_contain_text("(loading)")


def test_too_little_to_compare_is_said_without_asking_the_server(asked: Visit) -> None:
    asked.page.get_by_label("Texts", exact=True).fill("one alone")
    asked.go("Compare these texts")
    assert "at least two" in asked.trouble("unfit").inner_text()
    asked.page.get_by_text("Search", exact=True).click()
    asked.page.get_by_label("Look for").fill("")
    asked.go("Find the nearest")
    assert "what to look for" in asked.trouble("unfit").inner_text()
