"""The store as a command uses it, and who uses it."""

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
    """Raises OperatorError for what goes wrong inside: a store that cannot be used, a key that is none, terms that cannot be."""
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
    """Who runs this, for the audit trail: by what the operating system says, not by a variable anybody may set."""
    if sys.platform == "win32":
        return f"cli:{os.getlogin()}"
    import pwd  # noqa: PLC0415 - not to be had on Windows

    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"  # containers run as users that no file knows
