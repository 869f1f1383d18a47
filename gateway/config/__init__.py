"""Settings: what can be set, and how it is read. Knows the file, the environment and the flags; knows no room that uses them."""

from gateway.config.choices import InstructionFormat, LongInput, PromptName, Task
from gateway.config.listen_address import ListenAddress, listen_addresses, local_url
from gateway.config.loading import QUOTES, child_environment, first_set, load, secret_value
from gateway.config.settings import (
    BUILTIN_MODELS,
    CATCH_ALL,
    AdminSettings,
    AuthSettings,
    CacheSettings,
    Config,
    EngineSettings,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    ModelRow,
    PageSettings,
    Secret,
    ServerSettings,
    StoreSettings,
    TraceSettings,
    UsageSettings,
)
from gateway.config.source import ConfigSource
from gateway.config.text_file import NotUTF8, read_text, reason_of
from gateway.config.typed import convert

__all__ = [
    "BUILTIN_MODELS",
    "CATCH_ALL",
    "QUOTES",
    "AdminSettings",
    "AuthSettings",
    "CacheSettings",
    "Config",
    "ConfigSource",
    "EngineSettings",
    "InstructionFormat",
    "LimitSettings",
    "ListenAddress",
    "LogSettings",
    "LongInput",
    "MetricsSettings",
    "ModelRow",
    "NotUTF8",
    "PageSettings",
    "PromptName",
    "Secret",
    "ServerSettings",
    "StoreSettings",
    "Task",
    "TraceSettings",
    "UsageSettings",
    "child_environment",
    "convert",
    "first_set",
    "listen_addresses",
    "load",
    "local_url",
    "read_text",
    "reason_of",
    "secret_value",
]
