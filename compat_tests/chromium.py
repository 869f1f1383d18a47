"""Debian's Chromium, which reaches nothing but this machine. Without it a user's machine skips, and CI fails."""

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


def chromium_or_skip() -> str:
    if CHROMIUM is None:
        skip_or_fail("Chromium is not installed (Debian: apt-get install chromium)")
    return str(CHROMIUM)


def skip_or_fail(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
