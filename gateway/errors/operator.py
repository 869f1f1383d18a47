"""What whoever runs the gateway must mend."""


class OperatorError(Exception):
    """Something whoever runs the gateway must mend. Its text is the one line they read.

    `category` is all that strangers are told of it, by `/readyz`: a word without paths, addresses or figures.
    """

    def __init__(self, message: str, *, category: str = "cannot_be_loaded") -> None:
        super().__init__(message)
        self.category = category


class ConfigurationError(OperatorError):
    """A setting that is unknown, of the wrong type, out of its range, or at odds with another."""


class StoreAway(OperatorError):
    """The key store gives no answer, or refuses us, now; the same may succeed later.

    `is_unsure` where a change was sent off and nobody said whether it was made.
    """

    def __init__(self, message: str, *, is_unsure: bool = False) -> None:
        super().__init__(message)
        self.is_unsure = is_unsure
