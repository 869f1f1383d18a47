"""The mean wait of G/G/c, which the plan must agree with where it is exact.

Source: A. O. Allen, Probability, Statistics and Queueing Theory, 1990, 5.3.3 (Allen and Cunneen).
"""

import math

from gateway.capacity.queueing import erlang_c


def mean_wait(num_servers: int, load: float, seconds_each: float, *, arrival_scv: float = 1.0, service_scv: float = 1.0) -> float:
    """In the queue of G/G/c, by Allen and Cunneen; exact for M/M/c. `scv` are squared coefficients of variation."""
    if load >= num_servers:
        return math.inf
    chance = erlang_c(num_servers, load)
    return chance * seconds_each / (num_servers - load) * (arrival_scv + service_scv) / 2
