"""Whose fault an error is: an input's, the model's for a while, or whoever runs it must mend it."""

import re

from gateway.bulk.row import shown
from gateway.errors import ClientError, GatewayError, RequestTooLong, Unavailable, Unembeddable

SERVER_ERROR = 500
NETWORK_ERRORS = (RuntimeError, ValueError)  # whatever a network raises on one input alone
ERRORS = (GatewayError, *NETWORK_ERRORS)
NAMED = re.compile(r"'input(?:\[(\d{1,6})\])?'")  # as our own errors name one
NEVER_AN_INPUTS = {401, 403, 404, 408, 429, 503, 504}  # keys, names, limits and time-outs: these are said of any request


def names_input(error: Exception) -> bool:
    """Whether it says itself that an input is to blame, and none of the options all inputs share."""
    return isinstance(error, RequestTooLong | Unembeddable) or (isinstance(error, ClientError) and error.param == "input")


def may_be_inputs(error: Exception) -> bool:
    """Whether an input may be to blame, which then another request tells: one of a text that is known to be good."""
    return not (isinstance(error, GatewayError) and error.status in NEVER_AN_INPUTS)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    is_later = isinstance(error, GatewayError) and error.status >= SERVER_ERROR and error.retry_after_seconds is not None
    return isinstance(error, Unavailable) or is_later


def reason_of(error: Exception) -> str:
    """For the file of rejected rows. Words of a network's own may hold anything, and are left out."""
    if not isinstance(error, GatewayError):
        return "the model failed on it"
    return NAMED.sub("text", error.message).removesuffix(".")


def index_of(error: Exception, num_inputs: int) -> int | None:
    """Which input it names, where it names one of several."""
    found = NAMED.search(error.message) if isinstance(error, GatewayError) and names_input(error) else None
    index = int(found[1]) if found and found[1] else None
    return index if index is not None and index < num_inputs and num_inputs > 1 else None


def message_of(error: Exception) -> str:
    """For whoever runs it."""
    return error.message if isinstance(error, GatewayError) else f"it raised {shown(type(error).__name__)}"
