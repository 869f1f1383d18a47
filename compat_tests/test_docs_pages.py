"""The documentation pages in a real browser that can reach nothing but the gateway."""

import subprocess
from pathlib import Path

import pytest

from compat_tests.chromium import FLAGS, chromium_or_skip
from compat_tests.process import Gateway

RENDER_MILLISECONDS = 15_000


@pytest.fixture(scope="module")
def chromium() -> str:
    return chromium_or_skip()


def rendered(chromium: str, url: str, profile: Path) -> str:
    """The page's DOM after its scripts have run, every name and address but 127.0.0.1 unresolvable."""
    command = [
        chromium, *FLAGS, f"--user-data-dir={profile}", f"--virtual-time-budget={RENDER_MILLISECONDS}", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.mark.parametrize(
    ("path", "signs"),
    [
        ("/docs", ["swagger-ui", "Turn texts into vectors", "/v1/models/{model}", "Authorize"]),
        ("/redoc", ["redoc", "Turn texts into vectors", "encoding_format", "Describe a model"]),
    ],
)
def test_a_browser_without_a_network_shows_the_documentation(
    chromium: str, gateway: Gateway, tmp_path: Path, path: str, signs: list[str]
) -> None:
    page = rendered(chromium, gateway.origin + path, tmp_path / "profile")
    assert [sign for sign in signs if sign not in page] == []
