"""Screenshots of every view at three widths in both colour schemes, kept in `screenshots/` for people to look at."""

from pathlib import Path

import pytest

from compat_tests.page.conftest import Visits
from compat_tests.page.test_access import STATES
from compat_tests.process import Gateway

WIDTHS = [360, 768, 1440]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_photographed(visits: Visits, paged: Gateway, screenshots: Path, width: int, scheme: str) -> None:
    for name, come_to in STATES.items():
        visit = visits(paged, width=width, scheme=scheme, touch=width == WIDTHS[0]).open()
        come_to(visit)
        file = screenshots / f"{name.replace(' ', '-')}-{width}-{scheme}.png"
        visit.page.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 5_000
