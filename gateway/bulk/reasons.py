"""A summary of why rows were rejected: the most common reasons with their counts, and an option that may help."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gateway.bulk.row import shown

MAX_REASONS = 1000  # counted separately
SHOWN_REASONS = 5
MAX_REASON_CHARS = 200
HINTS = {
    "it is not UTF-8": "--encoding cp1252, or whatever the file is in, reads it",
    "and the header": "--delimiter and --quote say how fields are told apart",
    "it is not CSV": "--quote none takes quotes as they are",
    "a quoted field": "--quote none takes quotes as they are",
    "neither a string nor an integer": "--id names another column, --no-id numbers the rows",
    "it has no 'id'": "--id names another column, --no-id numbers the rows",
    "maximum input length": "--long-input chunk or end embeds them",
}


def count(reasons: Iterable[str]) -> Counter[str]:
    """Counts the reasons. Bounded: beyond MAX_REASONS different ones, all others are counted as one."""
    found: Counter[str] = Counter()
    for reason in reasons:
        found[reason if reason in found or len(found) < MAX_REASONS else "other reasons"] += 1
    return found


def summary(reasons: Counter[str], listed: Path) -> str:
    """Returns lines for a terminal, or "" if no row was rejected."""
    if not reasons:
        return ""
    commonest = reasons.most_common(SHOWN_REASONS)
    width = len(f"{commonest[0][1]:,}")
    lines = [f"rejected rows are listed in {shown(listed)}; why:"]
    lines += [f"  {number:>{width},}  {clean(reason)}{_hint_for(reason)}" for reason, number in commonest]
    if rest := reasons.total() - sum(number for _, number in commonest):
        lines.append(f"  {rest:>{width},}  for {len(reasons) - SHOWN_REASONS:,} other reasons")
    return "\n".join(lines) + "\n"


def clean(reason: str) -> str:
    """Escapes and shortens a reason for a terminal: some reasons are another server's text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in reason[:MAX_REASON_CHARS])


def _hint_for(reason: str) -> str:
    hint = next((hint for words, hint in HINTS.items() if words in reason), None)
    return f" ({hint})" if hint else ""
