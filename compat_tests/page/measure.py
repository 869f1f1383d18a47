"""Measures the page against its bars, and prints them: `.venv-compat/bin/python -m compat_tests.page.measure`.

Weight; first paint; from the last byte of 200 vectors to their pictures on the screen; what the live figures cost the server.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from compat_tests.chromium import FLAGS, chromium_or_skip
from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.page.visit import Visit
from compat_tests.process import Gateway

ROUNDS = 9
NUM_TEXTS, WORDS_A_TEXT = 200, 34  # about 40 tokens each
LIVE_SECONDS = 40
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
WEIGHT = "() => performance.getEntries().reduce((sum, entry) => sum + (entry.decodedBodySize ?? 0), 0)"
DRAWN = "() => performance.getEntriesByName('drawn').at(-1)?.duration ?? 0"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        gateway = Gateway(Path(folder), GATEWAY_API_KEYS=ENVIRONMENT_KEY, GATEWAY__PAGE__LIVE="loopback")
        gateway.start()
        browser = playwright.chromium.launch(executable_path=chromium_or_skip(), args=FLAGS)
        try:
            gateway.wait_until_ready()
            tell("first paint", [first_paint(browser, gateway) for _ in range(ROUNDS)], "ms, bar 300")
            tell("weight", [weight(browser, gateway)], "bytes, bar 150,000")
            tell("200 texts drawn after the answer", drawing(browser, gateway), "ms, bar 100")
            quiet = cpu_share(gateway)
            page = visit(browser, gateway).open("now").page
            page.wait_for_selector("#chart-requests b")
            tell("live figures", [100 * (cpu_share(gateway) - quiet)], f"% of a core, bar 1 (quiet: {100 * quiet:.2f} %)")
        finally:
            browser.close()
            gateway.kill()


def visit(browser: Browser, gateway: Gateway) -> Visit:
    return Visit(browser.new_context().new_page(), gateway.origin, ENVIRONMENT_KEY)


def opened(browser: Browser, gateway: Gateway) -> Page:
    page = visit(browser, gateway).open().page
    page.wait_for_load_state("networkidle")
    return page


def first_paint(browser: Browser, gateway: Gateway) -> float:
    page = opened(browser, gateway)
    found = float(page.evaluate(PAINT))
    page.context.close()
    return found


def weight(browser: Browser, gateway: Gateway) -> float:
    return float(opened(browser, gateway).evaluate(WEIGHT))


def drawing(browser: Browser, gateway: Gateway) -> list[float]:
    """Each round has texts of its own, so that nothing comes from the cache."""
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dogs",
        "while",
        "seven",
        "wise",
        "owls",
        "read",
        "old",
        "books",
        "in",
        "a",
        "quiet",
        "hall",
    ]
    one = visit(browser, gateway).open().enter()
    found = []
    for turn in range(ROUNDS):
        texts = [
            " ".join(words[(turn + number * (3 + k) + k * k) % len(words)] for k in range(WORDS_A_TEXT))
            for number in range(NUM_TEXTS)
        ]
        one.page.evaluate("performance.clearMeasures()")
        one.page.get_by_label("Texts", exact=True).fill("\n".join(f"{number} {text}" for number, text in enumerate(texts)))
        one.go("Compare these texts")
        one.page.wait_for_function("() => performance.getEntriesByName('drawn').length > 0", timeout=60_000)
        found.append(float(one.page.evaluate(DRAWN)))
    print("  tokens:", one.fact("Tokens"))
    return found


def cpu_share(gateway: Gateway) -> float:
    """The server's processor time over the time that passed."""
    before, started = ticks(gateway), time.monotonic()
    time.sleep(LIVE_SECONDS)  # what is measured is this time
    return (ticks(gateway) - before) / TICKS_A_SECOND / (time.monotonic() - started)


def ticks(gateway: Gateway) -> int:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def tell(name: str, values: list[float], unit: str) -> None:
    spread = f" ({min(values):.1f} to {max(values):.1f} in {len(values)} rounds)" if len(values) > 1 else ""
    print(f"{name}: {statistics.median(values):.1f}{spread} {unit}")


if __name__ == "__main__":
    main()
