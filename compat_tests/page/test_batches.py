"""The key's batches: how far they are, what they say of errors, their files, cancelling; and that no other key sees them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Locator, expect

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.page.conftest import HOSTILE_NAME, Visits
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway
from compat_tests.test_openai_batches import begun, line


@pytest.fixture
def openai(paged: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=paged.base_url, api_key=ENVIRONMENT_KEY) as client:
        yield client


def card(visit: Visit, batch_id: str) -> Locator:
    return visit.page.locator(".batch", has=visit.page.locator(f"#{batch_id}"))


def test_a_batch_is_followed_to_its_files(visit: Visit, openai: OpenAI, tmp_path: Path) -> None:
    lines = [line("a", "one"), line("b", "two"), line("wrong", "")]
    batch = begun(openai, tmp_path, lines, metadata={"description": HOSTILE_NAME})
    visit.enter().page.locator(".views a[href='#batches']").click()
    shown = card(visit, batch.id)
    expect(shown.locator(".state")).to_have_text("completed", timeout=30_000)
    expect(shown.locator("h2")).to_have_text(HOSTILE_NAME)
    expect(shown.locator(".counts")).to_contain_text("2 of 3 requests answered · 1 failed")
    expect(shown.locator("progress")).to_have_attribute("value", "3")
    for words, custom_ids in {"Save replies": ["a", "b"], "Save errors": ["wrong"]}.items():
        with visit.page.expect_download() as download:
            shown.get_by_role("button", name=words).click()
        path = download.value.path()
        assert [json.loads(each)["custom_id"] for each in path.read_text().splitlines()] == custom_ids
    expect(shown.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_file_that_breaks_rules_is_told_by_its_lines(visit: Visit, openai: OpenAI, tmp_path: Path) -> None:
    batch = begun(openai, tmp_path, [line("a", "x"), *(line("a", "y") for _ in range(7))])
    shown = card(visit.enter().open("batches"), batch.id)
    expect(shown.locator(".state")).to_have_text("failed")
    expect(shown.locator(".faults li").first).to_contain_text("duplicate_custom_id line 2:")
    expect(shown.locator(".faults li").last).to_have_text("and 2 more")


def test_a_batch_is_cancelled_by_a_second_click_and_the_focus_stays(visit: Visit, openai: OpenAI, tmp_path: Path) -> None:
    batch = begun(openai, tmp_path, [line(f"id-{number}", f"text {number}") for number in range(6000)])
    shown = card(visit.enter().open("batches"), batch.id)
    shown.get_by_role("button", name="Cancel").click()
    certain = shown.get_by_role("button", name="Cancel it for good")
    expect(certain).to_be_focused()
    certain.click()
    expect(shown.locator(".state")).to_have_text("cancelled", timeout=60_000)  # after the slice in hand
    assert openai.batches.retrieve(batch.id).status == "cancelled"


def batch_of(number: int, status: str, **more: Any) -> dict[str, Any]:
    counts = {"total": 1000, "completed": 10 * number, "failed": 0}
    facts = {"id": f"batch_{number:02}", "endpoint": "/v1/embeddings", "model": "m", "created_at": 1_700_000_000 + number}
    facts |= {"errors": None, "metadata": None, "usage": None}
    return {**facts, "status": status, "request_counts": counts, **more}


def test_older_batches_are_a_click_away_and_progress_is_shown_as_it_comes(visit: Visit) -> None:
    first = {"data": [batch_of(1, "in_progress")], "has_more": True, "last_id": "batch_01"}
    visit.answered("/v1/batches?limit=20", 200, json.dumps(first))
    visit.enter().open("batches")
    expect(visit.page.locator("progress")).to_have_attribute("value", "10")
    visit.unanswered("/v1/batches?limit=20")
    both = {"data": [batch_of(40, "in_progress"), batch_of(2, "expired")], "has_more": False, "last_id": "batch_02"}
    visit.answered("/v1/batches?limit=40", 200, json.dumps(both))
    visit.answered("/v1/batches?limit=20", 200, json.dumps({**first, "data": [batch_of(40, "in_progress")]}))
    expect(visit.page.locator("progress")).to_have_attribute("value", "400")
    visit.go("Older batches")
    expect(visit.page.locator(".batch")).to_have_count(2)
    expect(visit.page.get_by_role("button", name="Older batches")).to_have_count(0)


def test_another_key_and_none_see_nothing_of_them(visits: Visits, gateway: Gateway, key: str) -> None:
    visit = visits(gateway).open("batches")
    expect(visit.page.locator("#batches .empty")).to_contain_text("whoever has a key")
    visit.enter(key)
    expect(visit.page.locator("#view-batches")).to_be_visible()
    visit.page.get_by_role("button", name="Key …").click()
    visit.page.get_by_role("button", name="Forget it").click()
    expect(visit.page.locator("#batches .empty")).to_contain_text("whoever has a key")
