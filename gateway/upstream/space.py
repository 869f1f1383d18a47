"""A space: the vectors of one model as one server gives them. Who is in the same space shares a cache and a fingerprint.

Spaces are told apart by what was measured, not by what they are called: a row joins another's space where identity, addresses and
probes agree, and a server whose model changed leaves its space for a new one. A space that was left is never entered again, so
what was cached in it cannot be found any more.
"""

import itertools
import weakref
from collections import OrderedDict
from dataclasses import dataclass

from gateway.upstream.probe import Reference, are_same

MAX_NAMED = 1000  # fingerprints whose vectors are remembered, so that no other vectors get the same


@dataclass(eq=False)
class Space:
    """`identity` is all that decides vectors beside what is measured; `scope` is what cache entries are kept under, and unique.

    `is_stale` once anybody found that the server gives other vectors: nobody may serve from it then.
    """

    identity: str
    reference: Reference
    fingerprint: str
    alike: tuple[str, ...]
    scope: str
    is_stale: bool = False


class Spaces:
    """Those of one gateway. Used on the event loop alone."""

    def __init__(self) -> None:
        self.live: weakref.WeakSet[Space] = weakref.WeakSet()
        self.named: OrderedDict[str, Reference] = OrderedDict()
        self.numbers = itertools.count(1)

    def join_or_open(self, identity: str, reference: Reference, alike: tuple[str, ...]) -> Space:
        """The space of these vectors: one that is there, or a new one. The first of `alike` is its fingerprint."""
        for space in self.live:
            if space.identity == identity and not space.is_stale and are_same(space.reference, reference):
                return space
        return self.open_new(identity, reference, alike)

    def open_new(self, identity: str, reference: Reference, alike: tuple[str, ...]) -> Space:
        """A new space, which nobody else is in."""
        fingerprint = self.name(alike[0], reference)
        others = alike[1:] if fingerprint == alike[0] else ()
        space = Space(identity, reference, fingerprint, others, f"{fingerprint}#{next(self.numbers)}")
        self.live.add(space)
        return space

    def again(self, space: Space) -> Space:
        """The same vectors under other cache keys: what is cached is not to be trusted any more."""
        space.is_stale = True
        return self.open_new(space.identity, space.reference, (space.fingerprint, *space.alike))

    def name(self, fingerprint: str, reference: Reference) -> str:
        """The fingerprint, with a number behind it where this gateway knows other vectors by it.

        Two neighbours may have one signature. Vectors that come back get the name back that they had.
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
