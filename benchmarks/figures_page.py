"""Puts figures, as they were printed, into a page for readers: between `<!-- NAME -->` and `<!-- end of NAME -->`."""

import re
from pathlib import Path


def put(page: Path, name: str, figures: str) -> None:
    """Raises ValueError if the page has no such place."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"{page} has no {begin} … {end}")
    block = f"{begin}\n```\n{figures.strip()}\n```\n{end}"
    page.write_text(place.sub(lambda _: block, text), encoding="utf-8")
