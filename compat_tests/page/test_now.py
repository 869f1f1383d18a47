"""The live figures: who sees them, and that they are what happened."""

import re
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from playwright.sync_api import expect

from compat_tests.conftest import running
from compat_tests.page.conftest import Visits
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway
from compat_tests.waiting import until


def test_whoever_sits_at_the_machine_sees_what_happens(visit: Visit) -> None:
    visit.enter().open("now")
    page = visit.page
    expect(page.locator("#chart-requests .line")).to_have_attribute("d", re.compile(r"^M"))
    script = """(key) => Promise.all(["a text", "another", "a third"].map((input) => fetch("/v1/embeddings", {
        method: "POST", headers: { authorization: `Bearer ${key}` }, body: JSON.stringify({ model: "all-MiniLM-L6-v2", input }),
    })))"""
    page.evaluate(script, visit.key)
    expect(page.locator("#stages")).to_contain_text("computing", timeout=10_000)
    expect(page.locator("#chart-latency .now-values")).to_contain_text("ms")
    page.evaluate("fetch('/v1/embeddings', { method: 'POST', body: '{}' })")
    expect(page.locator("#reasons")).to_contain_text("no key", timeout=10_000)
    expect(page.locator("#upstreams")).to_be_hidden()
    expect(page.locator("#now-since")).to_contain_text(re.compile(r"Watched since \S*\d:\d\d"))


def test_hidden_views_ask_for_nothing(visit: Visit) -> None:
    visit.enter().open("now")
    expect(visit.page.locator("#chart-requests .now-values b")).not_to_have_text("–")
    visit.page.locator(".views a[href='#try']").click()
    visit.page.wait_for_load_state("networkidle")
    before = len(visit.asked)
    visit.compare("one", "two")
    assert not [url for url in visit.asked[before:] if "/page/live" in url]


def test_a_key_without_the_admin_scope_is_told_why_it_sees_nothing(
    visits: Visits, tmp_path: Path, gateway: Gateway, key: str
) -> None:
    """The shared gateway has the default: keys with the admin scope alone."""
    visit = visits(gateway).open("now")
    expect(visit.page.locator("#now .empty")).to_contain_text("admin")
    visit.enter(key)
    expect(visit.page.locator("#now .empty[data-kind='forbidden']")).to_contain_text('live = "loopback"')


def test_an_administrators_key_sees_it_from_anywhere(visits: Visits, gateway: Gateway) -> None:
    """The gateway knows a new key within two seconds; until then the page says that it is wrong."""
    _, admin = gateway.create_key("operator", "--admin")
    until(lambda: gateway.status_of("/page/live", key=admin) == 200, seconds=10, what="the administrator's key")
    visit = visits(gateway).open()
    visit.enter(admin).open("now")
    expect(visit.page.locator("#chart-requests .line")).to_have_attribute("d", re.compile(r"^M"), timeout=15_000)


def test_turned_off_the_view_is_not_offered(visits: Visits, tmp_path: Path) -> None:
    with running(Gateway(tmp_path, GATEWAY__AUTH__MODE="none", GATEWAY__PAGE__LIVE="off")) as gateway:
        visit = visits(gateway).open()
        expect(visit.page.locator(".views a[href='#now']")).to_be_hidden()
        assert gateway.status_of("/page/live") == 404


def test_who_asks_through_a_proxy_does_not_sit_at_the_machine(paged: Gateway) -> None:
    assert paged.status_of("/page/live") == 200
    for name, value in (("x-forwarded-for", "10.0.0.1"), ("host", "attacker.example")):
        request = urllib.request.Request(f"{paged.origin}/page/live", headers={name: value})
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
        assert refused.value.code == 401
