"""Errors that the operator must fix."""


class OperatorError(Exception):
    """An error that the operator must fix. Its text is one line, written for the operator.

    `category` is the only part that `/readyz` shows: one word, without paths, addresses or figures.
    """

    def __init__(self, message: str, *, category: str = "cannot_be_loaded") -> None:
        super().__init__(message)
        self.category = category


class ConfigurationError(OperatorError):
    """A setting that is unknown, of the wrong type, out of its range, or at odds with another."""


class KeyStoreUnavailable(OperatorError):
    """The key store is unavailable: it does not answer, or refuses us. A retry may succeed later.

    `is_unsure`: a change was sent, and it is unknown whether the store made it.
    """

    def __init__(self, message: str, *, is_unsure: bool = False) -> None:
        super().__init__(message)
        self.is_unsure = is_unsure
