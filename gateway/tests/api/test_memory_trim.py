"""Memory is given back once large bodies are gone, and not while there is work."""

import pytest

from gateway.access.admission import Admission
from gateway.api.memory_trim import MIN_BYTES, MemoryWatch, malloc_trim


class Trims:
    num = 0

    def __call__(self):
        self.num += 1


@pytest.fixture
def watch():
    return MemoryWatch(Admission(max_requests=10, max_bytes=10 * MIN_BYTES), Trims())


async def held(watch, num_bytes):
    """A request with so large a body, which is looked at while it runs."""
    with watch.admission.enter() as stay:
        stay.hold(num_bytes)
        await watch.look()


async def test_large_bodies_that_are_gone_are_followed_by_one_trim(watch):
    await held(watch, MIN_BYTES)
    assert watch.trim.num == 0
    await watch.look()
    await watch.look()
    assert watch.trim.num == 1
    await held(watch, MIN_BYTES)
    await watch.look()
    assert watch.trim.num == 2


async def test_small_bodies_add_up_and_a_few_are_left_alone(watch):
    await held(watch, MIN_BYTES - 1)
    await watch.look()
    assert watch.trim.num == 0
    await held(watch, 1)
    await watch.look()
    assert watch.trim.num == 1


def test_this_machine_s_trim_is_found_and_can_be_called():
    trim = malloc_trim()
    assert trim is None or trim() in {0, 1}
