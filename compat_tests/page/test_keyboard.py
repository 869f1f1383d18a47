"""Everything by keyboard alone."""

from playwright.sync_api import Page, expect

from compat_tests.page.visit import Visit

MAX_TABS = 60
OUTLINED = (
    "() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && s.outlineWidth !== '0px'; }"
)


def tab_to(page: Page, selector: str) -> None:
    """Presses Tab until the element has the focus, which must be seen."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
            assert page.evaluate(OUTLINED) or selector.startswith("input[type=radio]")
            return
    raise AssertionError(f"Tab never came to {selector}")


def test_a_first_result_without_a_mouse(visit: Visit) -> None:
    page = visit.page
    tab_to(page, ".skip")
    tab_to(page, "#key")
    page.keyboard.type(visit.key)
    page.keyboard.press("Enter")
    expect(page.locator("#go")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".heat")).to_be_visible()
    tab_to(page, ".heat-box")
    expect(page.locator(".readout-texts p")).to_have_count(2)
    before = page.locator(".readout").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(page.locator(".readout")).to_contain_text("Point at a square")
    tab_to(page, ".map-box")
    expect(page.locator(".tip")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator(".tip")).to_contain_text("sunset")
    tab_to(page, ".pair")
    expect(page.locator(".pair.picked")).to_have_count(1)


def test_the_other_mode_and_ctrl_enter(visit: Visit) -> None:
    page = visit.enter().page
    page.locator("input[type=radio][value=compare]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Look for")).to_be_visible()
    tab_to(page, "#query")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".ranking")).to_be_visible()


def test_the_tabs_of_the_code_turn_by_arrow_keys(visit: Visit) -> None:
    visit.enter()
    page = visit.page
    page.locator(".views a[href='#use']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    tab_to(page, "[role=tab]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="OpenAI, Python")).to_be_focused()
    expect(page.get_by_role("tabpanel")).to_contain_text("from openai import OpenAI")
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="pgvector")).to_be_focused()
    tab_to(page, ".install .copy")
    page.keyboard.press("Enter")
    expect(page.locator(".install .copy")).to_have_text("Copied")


def test_the_views_have_addresses_and_the_way_back_works(visit: Visit) -> None:
    page = visit.page
    page.locator(".views a[href='#models']").click()
    expect(page).to_have_title("Models · Embeddings gateway")
    page.go_back()
    expect(page.locator("#view-try")).to_be_visible()
