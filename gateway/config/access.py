"""`[auth]`, `[limits]`, `[store]`, `[admin]` and `[usage]`: keys, their limits, and where both are stored."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import platformdirs
from msgspec import Meta

from gateway.config.setting import MINUTES, Most, Secret, Settings, count, has_password, positive
from gateway.errors import ConfigurationError, LimitedKind


class AuthSettings(Settings, frozen=True):
    mode: Annotated[
        Literal["keys", "none"],
        Meta(
            description='"keys": every request needs an API key. "none": no request does. `auth = "none"` at the top is the same.'
        ),
    ] = "keys"
    keys: Annotated[
        Secret | None,
        Meta(description="Keys of at least 24 characters, separated by commas or lines, from a variable or a file."),
    ] = None
    keys_file: Annotated[
        str | None, Meta(description="A file with one key a line (# begins a comment). Read again when it changes.")
    ] = None
    max_snapshot_age_seconds: Annotated[
        float,
        positive(
            description="How long the known keys go on working while the key store cannot be read; then 503."
            " A snapshot on disk is valid for as long."
        ),
    ] = 60.0
    snapshot_on_disk: Annotated[
        bool,
        Meta(
            description="Whether data_dir keeps the ids, digests and limits of the keys in database_url (never a key), so that"
            " a gateway can start and serve while that store is unavailable."
        ),
    ] = True


class LimitSettings(Settings, frozen=True):
    max_input_tokens: Annotated[
        int,
        count(description="A text of more tokens is refused with 400. (Token arrays: 8192 ids, as OpenAI's own limit.)"),
    ] = 16_384
    max_request_tokens: Annotated[
        int, count(description="A request of more tokens is refused with 400. (Token arrays: 300,000 ids.)")
    ] = 600_000
    requests_per_minute: Annotated[
        Most | None, Meta(description="Requests a minute of each key that has no such limit of its own; beyond it 429.")
    ] = None
    requests_burst: Annotated[
        Most | None,
        Meta(description="How many requests may come at once. Default: a sixth of a minute's, as for keys' own limits."),
    ] = None
    tokens_per_minute: Annotated[
        Most | None, Meta(description="Tokens a minute of each key that has no such limit of its own; beyond it 429.")
    ] = None
    tokens_burst: Annotated[
        Most | None,
        Meta(
            description="How many of them may come at once, and so in one request: a larger one is refused with 400."
            " Default: a sixth of tokens_per_minute or 300,000, whichever is more, but at most tokens_per_minute; then only a"
            " request above tokens_per_minute is refused with 400."
        ),
    ] = None
    max_concurrent_requests: Annotated[
        Most | None,
        Meta(description="Requests at once of each key without such a limit of its own. Further ones wait, then get 429."),
    ] = None
    max_wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="How long a request beyond its key's max_concurrent_requests waits for its turn, before its body is read."
            " 0 refuses it at once.",
        ),
    ] = 2.0
    max_waiting_per_key: Annotated[int, count(description="The most requests of one key that wait; one more is 429 at once.")] = 128
    max_waiting: Annotated[int, count(description="The most requests of all keys together that wait.")] = 1024
    charge_cached: Annotated[
        bool, Meta(description="Whether inputs whose vectors come from the cache use up a key's tokens a minute too.")
    ] = True
    redis_url: Annotated[
        Secret | None,
        Meta(
            description="A Redis or Valkey server that counts for several gateways together, such as redis://:password@host:6379/0."
            " Without it each gateway counts for itself. Needs the extra `redis`."
        ),
    ] = None
    redis_timeout_seconds: Annotated[
        float,
        positive(description="If Redis does not answer in this time, it counts as unavailable and is tried every second or two."),
    ] = 0.1
    on_limiter_failure: Annotated[
        Literal["local", "allow", "deny"],
        Meta(
            description='While it is unavailable: with "local" each gateway applies the whole limit itself, "allow" serves requests'
            ' without limits, "deny" answers those of limited keys 503.'
        ),
    ] = "local"

    def __post_init__(self) -> None:
        for kind in get_args(LimitedKind):
            if getattr(self, f"{kind}_burst") is not None and getattr(self, f"{kind}_per_minute") is None:
                raise ValueError(f"{kind}_burst is part of a limit: set {kind}_per_minute too")


class StoreSettings(Settings, frozen=True):
    data_dir: Annotated[
        str | None,
        Meta(
            description="The folder of the key database and of compiled models; by default the user's own. Also GATEWAY_DATA_DIR."
        ),
    ] = None
    database_url: Annotated[
        Secret | str | None,
        Meta(
            description="postgresql://… lets several gateways share keys and usage. Default: a SQLite file in data_dir."
            " A URL with a password is a secret: { env = … } or { file = … }."
        ),
    ] = None

    def __post_init__(self) -> None:
        if isinstance(self.database_url, str) and has_password(self.database_url):
            raise ValueError(
                'database_url holds a password: write { env = "NAME" } or { file = "PATH" }, or leave the password to PGPASSFILE'
            )

    @property
    def folder(self) -> Path:
        if self.data_dir:
            return Path(self.data_dir)
        try:
            return Path(platformdirs.user_data_dir("embeddings-gateway", appauthor=False))
        except RuntimeError:  # a container's random user: no HOME, and no line in the user database
            raise ConfigurationError("store.data_dir: this user has no home folder: set it, or GATEWAY_DATA_DIR") from None


class AdminSettings(Settings, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Whether /admin/keys and /admin/usage are served, to keys made with `--admin` alone.")
    ] = False


class UsageSettings(Settings, frozen=True):
    flush_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=MINUTES,
            description="How often usage is written to the store, and budgets are compared with what other gateways wrote."
            " A process that is killed loses what it counted since.",
        ),
    ] = 5.0
    retention_days: Annotated[
        int, Meta(ge=32, le=36_500, description="Usage older than this is deleted. Budgets of a month need the 32 days.")
    ] = 400
