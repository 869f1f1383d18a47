"""The configuration: every setting, and how it is read from flags, environment and file. Knows no package that uses it.

settings    the whole configuration; setting contains the parts of its tables
server      [server], [page]
doors       [doors]
access      [auth], [limits], [store], [admin], [usage]
engine      [engine], [cache]
files       [files]
batches     [batches]
telemetry   [log], [metrics], [traces]
model_row   [[models]], and the built-in model
loading     flag > environment > file > default; typed checks and refuses values
source      the source from which a running gateway reads it again
"""

from gateway.config.access import AdminSettings, AuthSettings, LimitSettings, StoreSettings, UsageSettings
from gateway.config.batches import BatchSettings
from gateway.config.choices import InstructionFormat, LongInput, OutputDtype, PromptName, RangesSetting, Task
from gateway.config.doors import DoorSettings
from gateway.config.engine import CacheSettings, EngineSettings
from gateway.config.files import FileSettings
from gateway.config.listen_address import ListenAddress, listen_addresses, local_url
from gateway.config.loading import QUOTES, bare_environment, child_environment, first_set, load, secret_value
from gateway.config.model_row import BUILTIN_MODELS, CATCH_ALL, ModelRow
from gateway.config.server import PageSettings, ServerSettings
from gateway.config.setting import Secret
from gateway.config.settings import Config
from gateway.config.source import ConfigSource
from gateway.config.telemetry import LogSettings, MetricsSettings, TraceSettings
from gateway.config.text_file import NotUTF8, read_text, reason_of
from gateway.config.typed import convert

__all__ = [
    "BUILTIN_MODELS",
    "CATCH_ALL",
    "QUOTES",
    "AdminSettings",
    "AuthSettings",
    "BatchSettings",
    "CacheSettings",
    "Config",
    "ConfigSource",
    "DoorSettings",
    "EngineSettings",
    "FileSettings",
    "InstructionFormat",
    "LimitSettings",
    "ListenAddress",
    "LogSettings",
    "LongInput",
    "MetricsSettings",
    "ModelRow",
    "NotUTF8",
    "OutputDtype",
    "PageSettings",
    "PromptName",
    "RangesSetting",
    "Secret",
    "ServerSettings",
    "StoreSettings",
    "Task",
    "TraceSettings",
    "UsageSettings",
    "bare_environment",
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
