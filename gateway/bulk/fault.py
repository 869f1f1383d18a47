"""Classification of errors: an input's fault, a transient error of the model, or one that the operator must fix."""

import re

from gateway.bulk.row import shown
from gateway.errors import ClientError, GatewayError, RequestTooLong, Unavailable, Unembeddable

SERVER_ERROR = 500
NETWORK_ERRORS = (RuntimeError, ValueError)  # that a neural network raises on a single input
ERRORS = (GatewayError, *NETWORK_ERRORS)
NAMED = re.compile(r"'input(?:\[(\d{1,6})\])?'")  # an input in the text of our own errors
NEVER_AN_INPUTS = {401, 403, 404, 408, 429, 503, 504}  # keys, names, limits and time-outs: they apply to any request


def names_input(error: Exception) -> bool:
    """Whether the error itself blames an input, and not an option that all inputs share."""
    return isinstance(error, RequestTooLong | Unembeddable) or (isinstance(error, ClientError) and error.param == "input")


def may_be_inputs(error: Exception) -> bool:
    """Whether an input may be the cause. To find out, the worker embeds a text that is known to be good."""
    return not (isinstance(error, GatewayError) and error.status in NEVER_AN_INPUTS)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    is_later = isinstance(error, GatewayError) and error.status >= SERVER_ERROR and error.retry_after_seconds is not None
    return isinstance(error, Unavailable) or is_later


def reason_of(error: Exception) -> str:
    """Returns the reason for the file of rejected rows, without a neural network's own message, which may contain anything."""
    if not isinstance(error, GatewayError):
        return "the model failed on it"
    return NAMED.sub("text", error.message).removesuffix(".")


def index_of(error: Exception, num_inputs: int) -> int | None:
    """Returns the index of the input that the error names, or None if it names none of several."""
    found = NAMED.search(error.message) if isinstance(error, GatewayError) and names_input(error) else None
    index = int(found[1]) if found and found[1] else None
    return index if index is not None and index < num_inputs and num_inputs > 1 else None


def message_of(error: Exception) -> str:
    """Returns the message for the operator."""
    return error.message if isinstance(error, GatewayError) else f"it raised {shown(type(error).__name__)}"
