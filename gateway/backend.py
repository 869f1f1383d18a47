"""The public API for backends in other packages: every name an author needs. All other names may change in any release.

docs/backends.md has a complete example. The rest of this package imports these names from the modules that define them.
"""

from gateway.config import LongInput, ModelRow, Secret, secret_value
from gateway.embedding.backend import (
    Backend,
    BackendContext,
    BoundBackend,
    Compiled,
    CompileProgress,
    ConnectionCheck,
    Preview,
)
from gateway.embedding.embedder import AnyEmbedder, Description, Embedder, Health, Inputs, Prepared, Vectors, Verified
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.vectors import normalize_rows, refuse_no_vector
from gateway.errors import (
    ConfigurationError,
    DeadlinePassed,
    InputTooLong,
    InvalidValue,
    ModelUnavailable,
    OperatorError,
    Overloaded,
    RequestTooLong,
    Unembeddable,
    UpstreamError,
    UpstreamUnavailable,
)

__all__ = [
    "AnyEmbedder",
    "Backend",
    "BackendContext",
    "BoundBackend",
    "CompileProgress",
    "Compiled",
    "ConfigurationError",
    "ConnectionCheck",
    "DeadlinePassed",
    "Description",
    "Embedder",
    "Fingerprint",
    "Health",
    "InputTooLong",
    "Inputs",
    "InvalidValue",
    "LongInput",
    "ModelRow",
    "ModelUnavailable",
    "OperatorError",
    "Overloaded",
    "Prepared",
    "Preview",
    "RequestTooLong",
    "Secret",
    "Unembeddable",
    "UpstreamError",
    "UpstreamUnavailable",
    "Vectors",
    "Verified",
    "digest",
    "normalize_rows",
    "refuse_no_vector",
    "secret_value",
]
