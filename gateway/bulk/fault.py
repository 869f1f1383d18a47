"""Whose fault an error is: an input's, the model's for a while, or whoever runs it must mend it."""

from gateway.errors import ClientError, GatewayError, RequestTooLong, Unavailable, Unembeddable

SERVER_ERROR = 500
FAULTS = (ClientError, Unembeddable, RuntimeError, ValueError)  # whatever a network raises on one input alone


def is_fault(error: GatewayError) -> bool:
    """Whether an input is to blame, and none of the options all inputs share."""
    return isinstance(error, RequestTooLong | Unembeddable) or (isinstance(error, ClientError) and error.param == "input")


def may_pass(error: GatewayError) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, Unavailable) or (error.status >= SERVER_ERROR and error.retry_after_seconds is not None)


def reason_of(error: Exception) -> str:
    """For the file of rejected rows. Words of a network's own may hold anything, and are left out."""
    if not isinstance(error, GatewayError):
        return "the model failed on it"
    return error.message.replace("'input[0]'", "text").removesuffix(".")
