"""Notices when a caller that a front remembers may no longer be right: a key was changed, revoked, or has expired."""

import math
import time
from collections.abc import Callable

from gateway.access.keys.snapshot import KeySnapshot


class KeyWatch:
    """Calls `on_changed` after the keys of a snapshot changed, once its age begins or ceases to refuse all, and at each expiry
    that was noted. `clock` is in Unix seconds."""

    def __init__(self, *, on_changed: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self.on_changed = on_changed
        self.clock = clock
        self.snapshot: KeySnapshot | None = None
        self.is_stale = False
        self.next_expiry = math.inf  # the earliest of those that were noted since `on_changed` was called

    def watch(self, snapshot: KeySnapshot | None) -> None:
        """Watches this snapshot from now on; None if no keys are needed."""
        if self.snapshot is not None:
            self.snapshot.on_changed = None
        self.snapshot = snapshot
        if snapshot is not None:
            snapshot.on_changed = self.notify
            self.is_stale = snapshot.is_stale

    def note(self, text: str) -> None:
        """A front will remember the caller of this key."""
        if self.snapshot is not None:
            self.next_expiry = min(self.next_expiry, self.snapshot.expiry_of(text))

    def look(self) -> None:
        """Call it several times a second."""
        is_stale = self.snapshot is not None and self.snapshot.is_stale
        if is_stale != self.is_stale or self.clock() >= self.next_expiry:
            self.is_stale = is_stale
            self.notify()

    def notify(self) -> None:
        self.next_expiry = math.inf
        self.on_changed()
