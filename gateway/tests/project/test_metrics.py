"""deploy/metrics.md tells every metric: its name, its type, its labels."""

import re
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector

from gateway.metrics import Metrics

DOCUMENT = Path(__file__).parents[3] / "deploy" / "metrics.md"
COLUMNS = ("name", "type", "labels", "unit", "meaning", "when to worry")


class ProcessMetric:
    """What the client library tells of the process, which has no labels."""

    def __init__(self, family):
        self._name, self._type, self._documentation, self._labelnames = family.name, family.type, family.documentation, ()


def metrics_of(collector):
    return map(ProcessMetric, collector.collect()) if isinstance(collector, ProcessCollector) else [collector]


def collectors() -> dict[str, object]:
    """Each metric by the name it is queried by."""
    found = [each for collector in Metrics().registry._collector_to_names for each in metrics_of(collector)]
    return {each._name + ("_total" if each._type == "counter" else ""): each for each in found}


def documented() -> dict[str, dict[str, str]]:
    """The rows of all tables, each by its metric's name."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = [dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines]
    return {row["name"].strip("`"): row for row in rows}


def test_the_document_lists_exactly_the_metrics_there_are():
    assert sorted(documented()) == sorted(collectors())
    assert len(collectors()) > 15


@pytest.mark.parametrize("name", collectors())
def test_a_metric_is_documented_with_its_type_and_labels(name):
    metric, row = collectors()[name], documented()[name]
    assert row["type"] == metric._type
    assert re.findall(r"`(\w+)`", row["labels"]) == list(metric._labelnames)
    assert all(row.values())


@pytest.mark.parametrize("name", collectors())
def test_a_metric_is_ours_and_has_a_help_text(name):
    assert re.fullmatch(r"(gateway|process)_[a-z_]+", name)
    assert len(collectors()[name]._documentation) > 10
    assert collectors()[name]._documentation.endswith((".", "signal.", "code."))


def test_the_text_of_metrics_says_the_same_names():
    text = Metrics().exposition().decode()
    helps = set(re.findall(r"^# HELP (\w+) ", text, flags=re.MULTILINE))
    assert helps == set(collectors())
    assert "_created" not in text
