"""The whole configuration. Each setting is declared once, with its type, range, default and description.

`gateway config example` writes `deploy/gateway.toml` from these, and a test keeps the two equal.
"""

from gateway.config.access import AdminSettings, AuthSettings, LimitSettings, StoreSettings, UsageSettings
from gateway.config.batches import BatchSettings
from gateway.config.doors import DoorSettings
from gateway.config.engine import CacheSettings, EngineSettings
from gateway.config.files import FileSettings
from gateway.config.model_row import BUILTIN_MODELS, ModelRow
from gateway.config.server import PageSettings, ServerSettings
from gateway.config.setting import Settings
from gateway.config.telemetry import LogSettings, MetricsSettings, TraceSettings
from gateway.errors import ConfigurationError


class Config(Settings, frozen=True):
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    cache: CacheSettings = CacheSettings()
    store: StoreSettings = StoreSettings()
    admin: AdminSettings = AdminSettings()
    usage: UsageSettings = UsageSettings()
    files: FileSettings = FileSettings()
    batches: BatchSettings = BatchSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings = TraceSettings()
    page: PageSettings = PageSettings()
    doors: DoorSettings = DoorSettings()
    models: tuple[ModelRow, ...] = BUILTIN_MODELS

    def __post_init__(self) -> None:
        if self.engine.max_queue_tokens < self.limits.max_request_tokens:
            raise ConfigurationError(
                "engine.max_queue_tokens must be at least limits.max_request_tokens, or the largest request could never be served"
            )
        if self.auth.mode == "none" and (self.auth.keys or self.auth.keys_file):
            raise ConfigurationError("auth.mode is 'none', yet keys are configured: remove one of the two")
        if self.auth.mode == "none" and self.admin.enabled:
            raise ConfigurationError(
                "auth.mode is 'none', yet admin.enabled asks for keys with the admin scope: remove one of the two"
            )
        if not self.models:
            raise ConfigurationError("models: at least one model is needed")

    @property
    def has_files(self) -> bool:
        """Whether files are kept. By default only where requests need a key, and no other gateway would look for them in vain."""
        if self.files.enabled is not None:
            return self.files.enabled
        is_one = self.store.database_url is None or self.files.folder is not None or self.files.s3_bucket is not None
        return self.auth.mode == "keys" and is_one
