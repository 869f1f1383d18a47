"""Our counters and histograms count as the library's own do, which have more to check."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from gateway.metrics.declaration import RATIOS, MetricDeclaration

amounts = st.lists(st.one_of(st.sampled_from([0, *RATIOS]), st.floats(0, 10)), max_size=20)


def exposition(count, histogram, registry, values):
    counted = count("c_total", "Counted.", ["a"], registry=registry).labels("x")
    observed = histogram("h", "Observed.", ["a"], registry=registry, buckets=RATIOS).labels("x")
    for value in values:
        counted.inc(value)
        observed.observe(value)
    counted.inc()
    return generate_latest(registry)


@given(amounts)
def test_each_value_counts_as_the_librarys_would(values):
    ours = MetricDeclaration(CollectorRegistry())
    library = prometheus_client.Counter, prometheus_client.Histogram
    assert exposition(ours.count.func, ours.histogram.func, ours.registry, values) == exposition(
        *library, CollectorRegistry(), values
    )


@given(amounts)
def test_many_values_at_once_count_as_one_by_one(values):
    histograms = [MetricDeclaration(CollectorRegistry()).histogram("h", "Observed.", buckets=RATIOS) for _ in range(2)]
    histograms[0].observe_all(values)
    for value in values:
        histograms[1].observe(value)
    one, other = ([sample for family in each.collect() for sample in family.samples] for each in histograms)
    assert [sample.value for sample in one] == pytest.approx([sample.value for sample in other])


def test_a_counter_never_goes_back():
    with pytest.raises(ValueError, match="cannot count -1"):
        MetricDeclaration(CollectorRegistry()).count("c_total", "Counted.").inc(-1)
