"""Opens the key store for a command, and names the actor for the audit trail."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.access.database import Database
from gateway.access.keys.policy import InvalidPolicy
from gateway.access.keys.store import KeyStore
from gateway.config import Config
from gateway.errors import OperatorError, UnknownKey


@contextmanager
def open_store(config: Config) -> Iterator[KeyStore]:
    """Opens the store for the block.

    Raises OperatorError, also from within the block, if the store cannot be used, a key does not exist, or a policy is invalid.
    """
    store = KeyStore(Database(config.store))
    try:
        store.open()
        yield store
    except UnknownKey as error:
        raise OperatorError(f"{error.message.rstrip('.')}: see `gateway keys list`") from None
    except InvalidPolicy as error:
        raise OperatorError(str(error)) from None
    finally:
        store.close()


def actor() -> str:
    """The user who runs this, for the audit trail: from the operating system, not from a variable that anyone can set."""
    if sys.platform == "win32":
        return f"cli:{os.getlogin()}"
    import pwd  # noqa: PLC0415 - not available on Windows

    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"  # containers run as users without an entry in /etc/passwd
