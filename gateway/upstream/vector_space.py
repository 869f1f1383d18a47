"""A space: the vectors of one model as one server gives them. Rows in the same space share a cache and a fingerprint.

Measurements distinguish spaces, not names. A row joins another's space if identity, addresses and probes agree. A server whose
model changed leaves its space for a new one. A space that was left is never entered again, so what was cached in it is never found.
"""

import itertools
import weakref
from collections import OrderedDict
from dataclasses import dataclass

from gateway.upstream.probe import Reference, are_same

MAX_NAMED = 1000  # fingerprints whose vectors are remembered, so that no other vectors get the same


@dataclass(eq=False)
class Space:
    """`identity` is all that decides vectors besides what is measured. Cache entries are kept under `scope`, which is unique.

    `is_stale` is set once any row found that the server gives other vectors: no row may serve from it then.
    """

    identity: str
    reference: Reference
    fingerprint: str
    alike: tuple[str, ...]
    scope: str
    is_stale: bool = False


class Spaces:
    """The spaces of one gateway. Used only on the event loop."""

    def __init__(self) -> None:
        self.live: weakref.WeakSet[Space] = weakref.WeakSet()
        self.named: OrderedDict[str, Reference] = OrderedDict()
        self.numbers = itertools.count(1)

    def join_or_open(self, identity: str, reference: Reference, alike: tuple[str, ...]) -> Space:
        """Returns the space of these vectors, an existing or a new one. The first of `alike` is the fingerprint of a new one."""
        for space in self.live:
            if space.identity == identity and not space.is_stale and are_same(space.reference, reference):
                return space
        return self.open_new(identity, reference, alike)

    def open_new(self, identity: str, reference: Reference, alike: tuple[str, ...]) -> Space:
        """Opens a new space, which no other row is in."""
        fingerprint = self.name(alike[0], reference)
        others = alike[1:] if fingerprint == alike[0] else ()
        space = Space(identity, reference, fingerprint, others, f"{fingerprint}#{next(self.numbers)}")
        self.live.add(space)
        return space

    def again(self, space: Space) -> Space:
        """Opens a space of the same vectors under other cache keys: what is cached can no longer be trusted."""
        space.is_stale = True
        return self.open_new(space.identity, space.reference, (space.fingerprint, *space.alike))

    def name(self, fingerprint: str, reference: Reference) -> str:
        """Returns the fingerprint, with a number appended if this gateway knows other vectors by it.

        Two similar models may have the same signature. Vectors that come back get their former name again.
        """
        for number in itertools.count(1):
            name = fingerprint if number == 1 else f"{fingerprint}-{number}"
            known = self.named.setdefault(name, reference)
            self.named.move_to_end(name)
            while len(self.named) > MAX_NAMED:
                self.named.popitem(last=False)
            if known is reference or are_same(known, reference):
                return name
        raise AssertionError  # there is always another number
