"""How fast a closed loop of clients was served, from the moments at which its requests were finished."""

MIN_BURSTS = 4  # with fewer, what is left without the first is too little


def requests_per_second(began: float, finished_at: list[float], num_clients: int) -> float:
    """Requests finished a second. `finished_at` are the moments in order, on the clock of `began`, in seconds.

    Clients that share a device fairly finish together, in bursts of `num_clients`. So whole bursts are counted, to the end of the
    last one: a window cut by the clock would count a burst or miss it. The first is left out where there are enough, because
    nothing was under way before it.
    """
    num_bursts = len(finished_at) // num_clients
    if num_bursts < 1:
        raise ValueError(f"{len(finished_at)} requests of {num_clients} clients are too few to tell a speed")
    ends = finished_at[num_clients - 1 :: num_clients]
    if num_bursts >= MIN_BURSTS:
        return (num_bursts - 1) * num_clients / (ends[-1] - ends[0])
    return num_bursts * num_clients / (ends[-1] - began)
