"""Retries never multiply the traffic."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.retry_budget import RetryBudget


@given(st.lists(st.booleans(), max_size=400))
def test_it_counts_as_exact_fractions_do(wants_retry):
    budget, exact = RetryBudget(share=0.1, reserve=3), Fraction(3)
    for wants in wants_retry:
        budget.earn()
        exact = min(Fraction(3), exact + Fraction(1, 10))
        if wants:
            assert budget.spend() == (exact >= 1)
            exact -= 1 if exact >= 1 else 0


def test_where_every_request_fails_a_tenth_of_them_is_retried_after_the_reserve():
    budget = RetryBudget()
    retried = 0
    for _ in range(1000):
        budget.earn()
        retried += budget.spend()
    assert 100 <= retried <= 110
