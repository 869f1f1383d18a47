"""Counts over all fronts, in memory that they share. Each front writes its own numbers alone, so nothing is locked.

A bound is kept like this: a front adds first, then reads the sum, and takes back what is above the bound. So two fronts that add at
the same time may both see too much and both refuse, but never both accept.
"""

import mmap
from typing import Literal, get_args

# accepts: 1 while the front accepts connections; accepting: connections it has accepted and not yet counted as open
Counter = Literal["accepts", "accepting", "connections", "requests", "body_bytes"]

NUMBERS: tuple[str, ...] = get_args(Counter)
NUMBER_BYTES = 8


# By address: a count-min sketch (Cormode and Muthukrishnan, 2005) of two rows. It never counts too few. Of 4,000 addresses with a
# connection each one in 300 counts those of another too. Clients cannot choose which: Python's hashes have a secret seed.
BUCKETS = 1 << 16
ROWS = 2
BUCKET_BYTES = 4


class Totals:
    """`num_fronts` numbers for each counter. Made before the fronts are forked: the memory is theirs too."""

    def __init__(self, num_fronts: int) -> None:
        self.num_fronts = num_fronts
        self.numbers = memoryview(mmap.mmap(-1, len(NUMBERS) * num_fronts * NUMBER_BYTES)).cast("q")
        self.buckets = memoryview(mmap.mmap(-1, num_fronts * ROWS * BUCKETS * BUCKET_BYTES)).cast("I")  # pages are made when used

    def of_front(self, counter: Counter, front: int) -> "SharedCount":
        """The front's own number of this counter."""
        start = NUMBERS.index(counter) * self.num_fronts
        return SharedCount(self.numbers[start : start + self.num_fronts], front)

    def by_address(self, front: int) -> "SharedSketch":
        """The front's own numbers of connections by address."""
        return SharedSketch(self.buckets, front)

    def forget(self, front: int) -> None:
        """Sets the numbers of a front that has died to 0."""
        for number in range(len(NUMBERS)):
            self.numbers[number * self.num_fronts + front] = 0
        start, size = front * ROWS * BUCKETS, ROWS * BUCKETS
        self.buckets[start : start + size] = memoryview(bytes(size * BUCKET_BYTES)).cast("I")

    def read(self, counter: Counter) -> list[int]:
        """The counter's number of each front."""
        start = NUMBERS.index(counter) * self.num_fronts
        return list(self.numbers[start : start + self.num_fronts])


class SharedSketch:
    """One front's part of the counts by address."""

    def __init__(self, buckets: memoryview, front: int) -> None:
        self.buckets = buckets
        self.own = front * ROWS * BUCKETS

    def add(self, address: str, amount: int) -> int:
        """Adds to this front's number of the address. Returns the total of all fronts: never too few, rarely some too many."""
        hashed = hash(address)  # of the supervisor's seed, the same in all fronts
        places = hashed % BUCKETS, BUCKETS + (hashed >> 16) % BUCKETS
        for place in places:
            self.buckets[self.own + place] += amount
        return min(sum(self.buckets[place :: ROWS * BUCKETS]) for place in places)


class SharedCount:
    """One front's part of a counter. `add` and `total` cost less than a microsecond with 16 fronts."""

    __slots__ = ("front", "numbers")

    def __init__(self, numbers: memoryview, front: int) -> None:
        self.numbers = numbers
        self.front = front

    def add(self, amount: int) -> int:
        """Adds to this front's number. Returns the total of all fronts."""
        self.numbers[self.front] += amount
        return sum(self.numbers)

    @property
    def total(self) -> int:
        return sum(self.numbers)

    @property
    def own(self) -> int:
        return int(self.numbers[self.front])

    @own.setter
    def own(self, number: int) -> None:
        self.numbers[self.front] = number
