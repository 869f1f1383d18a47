"""Settings: what can be set, and how it is read. Knows the file, the environment and the flags; knows no room that uses them."""

from gateway.config.loading import child_environment, first_set, load, secret_value
from gateway.config.settings import (
    BUILTIN_MODELS,
    AuthSettings,
    CacheSettings,
    Config,
    EngineSettings,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    ModelRow,
    Secret,
    ServerSettings,
    StoreSettings,
)
from gateway.config.typed import typed

__all__ = [
    "BUILTIN_MODELS",
    "AuthSettings",
    "CacheSettings",
    "Config",
    "EngineSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelRow",
    "Secret",
    "ServerSettings",
    "StoreSettings",
    "child_environment",
    "first_set",
    "load",
    "secret_value",
    "typed",
]
