"""One line of the table: what was seen of one case, held against what is promised."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos_network.load import NO_ANSWER, Outcome, Stream
from benchmarks.chaos_network.scene import DEADLINE_SECONDS

BACK_SECONDS, TOLD_SECONDS = 5.0, 10.0  # the bars
LATE_SECONDS = 2.0  # of a reply beyond its deadline, for it to arrive, on a machine that does all of this at once
FREED_SECONDS = 11.0  # of a client that is gone: the gateway's keep-alive here, and as long as a round of probes takes
PROBE_SECONDS = 3.0  # a kubelet's own patience is one, on a machine that does less at once


@dataclass
class Row:
    """Seconds, None where it never came. `told_in_log` and `told_in_metrics` count from the fault's beginning, `back` from the
    moment the other side could be reached again. `is_telling` says whether log and metric must tell of it."""

    pair: str
    fault: str
    outcomes: dict[str, int]
    others: dict[str, int]
    longest_seconds: float
    back_seconds: float | None
    is_telling: bool = False
    told_in_log: float | None = None
    told_in_metrics: float | None = None
    freed_seconds: float | None = None
    longest_probe_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(Counter(each.kind for each in outcomes).most_common())


def back_seconds(outcomes: Sequence[Outcome], streams: frozenset[Stream], returned: float) -> float | None:
    """Until, in each stream, a reply is good, and no request that begins fails any more."""
    latest = 0.0
    for stream in streams:
        mine = [each for each in outcomes if each.stream == stream]
        good = [each.ended for each in mine if each.is_good and each.ended > returned]
        if not good:
            return None
        failed = [each.began for each in mine if not each.is_good and each.began > returned]
        latest = max(latest, min(good) - returned, max(failed, default=returned) - returned)
    return latest


def broken_promises(
    row: Row, affected: Sequence[Outcome], others: Sequence[Outcome], may_see: frozenset[str], *, is_client_side: bool
) -> Iterator[str]:
    wrong = {each.kind for each in (*affected, *others) if each.is_wrong}
    wrong |= {each.kind for each in affected if not each.is_good and each.kind not in may_see}
    if wrong:
        yield f"callers may not see: {', '.join(sorted(wrong))}"
    if told := {each.kind for each in others if not each.is_good}:
        yield f"callers whom it does not concern saw: {', '.join(sorted(told))}"
    late = [each for each in (*affected, *others) if each.kind not in NO_ANSWER and each.seconds > DEADLINE_SECONDS + LATE_SECONDS]
    if late and not is_client_side:
        yield f"{len(late)} waited longer than their deadline"
    yield from late_signs(row)


def late_signs(row: Row) -> Iterator[str]:
    if row.back_seconds is None or row.back_seconds > BACK_SECONDS:
        yield f"not back within {BACK_SECONDS:g} s"
    if row.is_telling:
        for where, seconds in (("the log", row.told_in_log), ("the metrics", row.told_in_metrics)):
            if seconds is None or seconds > TOLD_SECONDS:
                yield f"{where} did not tell within {TOLD_SECONDS:g} s"
    if row.longest_probe_seconds > PROBE_SECONDS:
        yield f"a probe took longer than {PROBE_SECONDS:g} s"
