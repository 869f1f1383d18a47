"""The page with nobody else to ask: its policy, its weight, texts and names that would be markup, and what it never does."""

import urllib.request
from urllib.error import HTTPError

import pytest
from playwright.sync_api import expect

from compat_tests.page.conftest import HOSTILE_NAME, Visits
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway

HOSTILE_TEXTS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "</textarea><svg onload=alert(3)>",
    "&lt;b&gt; \"quoted\" 'single' `backtick` ${alert(4)} {{alert(5)}}",
    "javascript:alert(6)",
]
VIEWS = ["try", "use", "models", "batches", "now"]
MAX_BYTES = 150_000


def test_the_page_asks_nobody_but_its_server(visit: Visit) -> None:
    """The browser can reach nobody else; the visits' own end sees that it never tried."""
    visit.enter().compare(*HOSTILE_TEXTS)
    for view in VIEWS:
        visit.page.locator(f".views a[href='#{view}']").click()
        expect(visit.page.locator(f"#view-{view}")).to_be_visible()
    expect(visit.page.locator("#chart-requests .now-values")).to_be_visible()
    assert {url.removeprefix(visit.origin).partition("?")[0].partition("#")[0].split("/")[1] for url in visit.asked} == {
        "",
        "page",
        "v1",
    }


def test_the_policy_forbids_all_else(visit: Visit, paged: Gateway) -> None:
    with urllib.request.urlopen(f"{paged.origin}/", timeout=10) as answer:
        policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "trusted-types 'none'"} <= {
        part.strip() for part in policy.split(";")
    }
    broken = visit.page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            try { document.body.insertAdjacentHTML("beforeend", "<p>markup</p>"); } catch {}
            await fetch("http://127.0.0.1:9/").catch(() => {});
            await new Promise((resolve) => setTimeout(resolve));
            return seen;
        }"""
    )
    visit.complaints.clear()  # these were asked for
    assert set(broken) == {"require-trusted-types-for", "connect-src"}
    visit.asked[:] = [url for url in visit.asked if url.startswith(visit.origin)]


def test_all_of_the_page_weighs_little(visit: Visit) -> None:
    visit.page.wait_for_load_state("networkidle")
    weights = visit.page.evaluate(
        "performance.getEntries().filter((e) => e.decodedBodySize).map((e) => [e.name, e.decodedBodySize])"
    )
    assert len(weights) > 15
    assert sum(weight for _, weight in weights) < MAX_BYTES


def test_hostile_texts_are_shown_as_they_were_written(visit: Visit) -> None:
    alerts: list[str] = []
    visit.page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    visit.enter().compare(*HOSTILE_TEXTS)
    page = visit.page
    shown = page.locator(".nearest").inner_text() + page.locator(".heat").inner_text()
    assert HOSTILE_TEXTS[0] in shown
    assert HOSTILE_TEXTS[1] in shown
    visit.page.locator(".map-box").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("Search", exact=True).click()
    page.get_by_label("Look for").fill(HOSTILE_TEXTS[0])
    visit.go("Find the nearest")
    expect(page.locator(".ranking h2")).to_contain_text(HOSTILE_TEXTS[0])
    assert page.locator("main img, main script, svg script, [onerror], [onload]").count() == 0
    assert alerts == []


def test_a_hostile_model_name_is_a_name(visit: Visit) -> None:
    alerts: list[str] = []
    visit.page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    visit.enter()
    page = visit.page
    page.locator("#model").select_option(HOSTILE_NAME)
    visit.compare("one", "two")
    for view in ("use", "models"):
        page.locator(f".views a[href='#{view}']").click()
        expect(page.locator(f"#view-{view}")).to_contain_text(HOSTILE_NAME)
    assert page.locator("main img, main script, [onerror]").count() == 0
    assert alerts == []


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css", "/page/icon.svg"])
def test_what_the_browser_has_it_need_not_fetch_again(paged: Gateway, path: str) -> None:
    with urllib.request.urlopen(f"{paged.origin}{path}", timeout=10) as answer:
        tag = answer.headers["etag"]
    request = urllib.request.Request(f"{paged.origin}{path}", headers={"if-none-match": tag})
    with pytest.raises(HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    error.value.close()
    assert error.value.code == 304


def test_the_page_is_gone_by_one_setting(visits: Visits, own_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway: Gateway = own_gateway(GATEWAY__PAGE__ENABLED="false", GATEWAY__DOORS__OLLAMA="false", GATEWAY__DOORS__TEI="false")
    gateway.start()
    gateway.wait_until_ready()
    assert [gateway.status_of(path) for path in ("/", "/page/page.js", "/page/live")] == [404, 404, 404]
