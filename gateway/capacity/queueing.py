"""Queueing formulas: how long texts wait. Times are in seconds, loads in busy servers (erlangs).

Sources:
* Erlang C, the probability to wait in M/M/c: A. K. Erlang, 1917; here by the recursion of Erlang B.
* Dynamic batching, servers that take all waiting texts as one batch: Y. Inoue, Queueing analysis of GPU-based inference servers
  with dynamic batching, Performance Evaluation 147, 2021. The bound phi_1 is the mean time in a server whose batch of n takes
  overhead + n * each.
* Power of two choices: M. Mitzenmacher, IEEE TPDS 12, 2001. A text that picks the less busy of two replicas waits about as long
  as one served by the servers of both.
"""

import math


def erlang_c(num_servers: int, load: float) -> float:
    """The probability that all servers of M/M/c are busy; 1 if they cannot carry the load."""
    if load >= num_servers:
        return 1.0
    blocked = 1.0
    for servers in range(1, num_servers + 1):
        blocked = load * blocked / (servers + load * blocked)
    utilization = load / num_servers
    return blocked / (1 - utilization * (1 - blocked))


def batch_waits(utilization: float, seconds_each: float, overhead_seconds: float) -> tuple[float, float]:
    """Inoue's phi_1: the mean time a text spends, besides its own, at a server that takes all waiting texts as one batch.

    `utilization` is the arrival rate times `seconds_each`, without the overhead, which a batch's texts share.

    Returns two parts, in seconds: for the other texts, and for the overheads of the batch before and of its own.
    """
    texts = seconds_each / 2 * (2 + utilization) / (1 - utilization**2) - seconds_each
    overheads = 1.5 * overhead_seconds / (1 - utilization) - overhead_seconds
    return texts, overheads


def two_choices(utilization: float, num_servers: int) -> float:
    """Power of two choices: the factor by which a wait shortens if each text goes to the less busy of two servers. 1 is no change.

    By Mitzenmacher, among many servers a share of rho ** (2 ** i - 1) has i texts or more; with one choice it would be rho ** i.
    If two of n servers are drawn with replacement, both are the same server with probability 1 / n.
    """
    if not utilization:
        return 1.0
    lengths: float = sum(utilization ** (2**number - 1) for number in range(2, 30))  # the mean number of waiting texts at a server
    among_many = lengths / utilization**3 * (1 - utilization)
    apart = 1 - 1 / num_servers
    return 1 - apart + apart * min(1.0, among_many)


def lognormal_exceeds(value: float, *, mean: float, cv: float) -> float:
    """The probability that a lognormal quantity of this mean and coefficient of variation exceeds `value`."""
    if value <= 0:
        return 1.0
    if cv == 0:
        return float(value < mean)
    spread = math.sqrt(math.log1p(cv**2))
    return math.erfc((math.log(value / mean) + spread**2 / 2) / (spread * math.sqrt(2))) / 2
