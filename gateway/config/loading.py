"""Loads the configuration: flag > environment > file > default. One wrong setting refuses the whole.

The environment names a setting `GATEWAY__SECTION__FIELD`. The underscore is doubled because Kubernetes injects
`GATEWAY_PORT=tcp://…` for a Service named gateway.
"""

import contextlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from gateway.config.model_row import ModelRow
from gateway.config.setting import Secret, Settings
from gateway.config.settings import Config
from gateway.config.text_file import NotUTF8, read_text, reason_of
from gateway.config.typed import convert, name_choices, readable, refuse_unknown
from gateway.errors import ConfigurationError

PREFIX = "GATEWAY__"
BYTE_ORDER_MARK = "\ufeff"
QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019"
DEFAULT_FILE = Path("gateway.toml")
SECTIONS = {name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type) and issubclass(hint, Settings)}

# Short names of variables, and the setting of each. GATEWAY_CONFIG names the file itself.
EFFECTIVE_SHORT_NAMES = {
    "GATEWAY_DATA_DIR": ("store", "data_dir"),
    "GATEWAY_API_KEYS": ("auth", "keys"),
    "GATEWAY_API_KEYS_FILE": ("auth", "keys_file"),
}

# What a process of strangers' code inherits of the environment
INHERITED = {"PATH", "LANG", "LANGUAGE", "TZ", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"}
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")  # Kubernetes injects such variables for a Service of that name

Tables = dict[str, Any]


def load(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, str], Any] | None = None,
) -> Config:
    """The whole configuration. `path` None means GATEWAY_CONFIG, else ./gateway.toml if it exists, else defaults.

    `flags` maps (section, field) to a value, and ("models", "") to rows, as tables, instead of the configured models.
    Raises ConfigurationError, which names the wrong setting or file.
    """
    environ = os.environ if environ is None else environ
    tables = merge(from_file(path or environ.get("GATEWAY_CONFIG")), _from_environment(environ))
    for (section, name), value in (flags or {}).items():
        if section != "models":
            tables.setdefault(section, {})[name] = value
    if rows := (flags or {}).get(("models", "")):
        tables["models"] = rows
    return build_config(tables)


def secret_value(secret: Secret) -> str:
    """The secret itself. Raises ConfigurationError if it cannot be read or is in quotes; the message never contains it."""
    if secret.env is not None:
        if secret.env not in os.environ:
            raise ConfigurationError(f"the environment variable {secret.env}, named as a secret, is not set")
        return unquoted(os.environ[secret.env].removeprefix(BYTE_ORDER_MARK), f"the environment variable {secret.env}")
    path = Path(secret.file or "")
    try:
        return unquoted(read_text(path), f"the secret file {path}")
    except (OSError, NotUTF8) as error:
        raise ConfigurationError(f"the secret file {path} cannot be read: {reason_of(error)}") from None


def unquoted(value: str, origin: str) -> str:
    """The value, if it is not in quotes: `docker --env-file` makes quotes a part of it. Raises ConfigurationError if it is."""
    text = value.strip()
    if len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES:
        raise ConfigurationError(f"{origin} holds a secret in quotes, which would be part of it: write it without")
    return value


def first_set(names: Iterable[str]) -> str | None:
    """The stripped value of the first of these environment variables that is not blank; None if all are."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a child process: this process's own and `more`, without the gateway's settings and keys."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**inherited, **more}


def bare_environment(**more: str) -> dict[str, str]:
    """The environment for a child process that runs code of strangers: what Python needs to start, and `more`. No key is in it."""
    inherited = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    return {**inherited, **more}


def from_file(path: str | Path | None) -> Tables:
    if path is None and not DEFAULT_FILE.exists():
        return {}
    path = Path(path or DEFAULT_FILE)
    try:
        tables = tomllib.loads(read_text(path).replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    except (OSError, NotUTF8) as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {reason_of(error)}") from None
    return tables


def _from_environment(environ: Mapping[str, str]) -> Tables:
    _refuse_misspelt(environ)
    tables: Tables = {}
    for name, (section, setting) in EFFECTIVE_SHORT_NAMES.items():
        if environ.get(name):
            is_secret = (section, setting) == ("auth", "keys")
            tables.setdefault(section, {})[setting] = {"env": name} if is_secret else environ[name]
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        section, _, setting = variable.removeprefix(PREFIX).lower().partition("__")
        if section == "models" and not setting:
            tables["models"] = _json_value(variable, environ[variable])
        elif section == "auth" and not setting:
            tables.setdefault("auth", {})["mode"] = environ[variable]
        else:
            refuse_unknown([section], [*SECTIONS, "models"], where="")
            refuse_unknown([f"{section}.{setting}"] if section == "models" else [], ["models"], where="")
            tables.setdefault(section, {})[setting] = _environment_value(variable, environ[variable], section, setting)
    return tables


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a near miss such as GATEWAY_SERVER_PORT, which would otherwise be ignored in silence."""
    settings = [f"{section}__{setting}" for section, struct in SECTIONS.items() for setting in get_type_hints(struct)]
    meant = {f"GATEWAY_{name.replace('__', '_')}".upper(): f"{PREFIX}{name}".upper() for name in ["auth", "models", *settings]}
    for variable in sorted(environ):
        right = meant.get(variable.upper().replace("__", "_"))
        is_read = variable.startswith(PREFIX) or variable in EFFECTIVE_SHORT_NAMES
        if right and not is_read and not SERVICE_LINK.match(environ[variable]):
            raise ConfigurationError(f"the environment variable {variable} is not read: did you mean {right}?")


def _environment_value(variable: str, text: str, section: str, setting: str) -> Any:
    """The text converted to the setting's type: "9000" to a port, "true" to a boolean, JSON to a list or a table."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    refuse_unknown([setting], hints, where=section)
    if _may_be_secret(hints[setting]) and text:
        # Either where the secret is kept, as JSON, or the secret itself: then this variable is where it is kept.
        return _json_value(variable, text) if text.startswith("{") else {"env": variable}
    if any("\udc80" <= char <= "\udcff" for char in text):  # Python decodes bytes that are not UTF-8 to these
        raise ConfigurationError(f"{variable} is not UTF-8 text")
    if _takes_list(hints[setting]) and text.startswith("["):
        with contextlib.suppress(ConfigurationError):  # [::1] begins with a bracket too
            return _json_value(variable, text)
    try:
        return msgspec.to_builtins(msgspec.convert(text, hints[setting], strict=False))
    except msgspec.ValidationError as error:
        refused = error
    if text.startswith(("{", "[")):  # only now: a path or an address may begin with one too
        try:
            return msgspec.to_builtins(msgspec.convert(_json_value(variable, text), hints[setting], strict=False))
        except msgspec.ValidationError as error:
            refused = error
    choices = name_choices(refused, get_type_hints(SECTIONS[section])[setting])
    raise ConfigurationError(f"{variable} ({readable(refused, where=f'{section}.{setting}')}{choices})")


def _may_be_secret(hint: Any) -> bool:
    """Whether the setting is a plain string or, if that contains a secret, a Secret."""
    return {Secret, str} <= set(get_args(get_args(hint)[0]))


def _takes_list(hint: Any) -> bool:
    """Whether the setting is a string or a list of strings."""
    return str in get_args(get_args(hint)[0]) and any(get_origin(each) is tuple for each in get_args(get_args(hint)[0]))


def _json_value(variable: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        raise ConfigurationError(f"{variable} is not valid JSON") from None


def merge(file: Tables, environment: Tables) -> Tables:
    tables = {name: dict(value) if isinstance(value, dict) else value for name, value in file.items()}
    if isinstance(tables.get("auth"), str):
        tables["auth"] = {"mode": tables["auth"]}
    for section, settings in environment.items():
        if isinstance(settings, dict) and isinstance(tables.get(section), dict):
            tables[section].update(settings)
        else:
            tables[section] = settings
    return tables


def build_config(tables: Tables) -> Config:
    refuse_unknown(tables, [*SECTIONS, "models"], where="")
    for name in SECTIONS:
        if not isinstance(tables.get(name, {}), dict):
            raise ConfigurationError(f"{name}: expected a table, [{name}]")
    parts: dict[str, Any] = {
        name: convert(tables[name], section, where=name) for name, section in SECTIONS.items() if name in tables
    }
    if "models" in tables:
        parts["models"] = _model_rows(tables["models"])
    return Config(**parts)


def _model_rows(rows: Any) -> tuple[ModelRow, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError("models: expected a list of tables, [[models]]")
    common = {field.name for field in msgspec.structs.fields(ModelRow)} - {"settings"}
    typed_rows = []
    for number, row in enumerate(rows):
        own = {key: value for key, value in row.items() if key in common}
        own["settings"] = {key: value for key, value in row.items() if key not in common}
        typed_rows.append(convert(own, ModelRow, where=f"models[{row.get('name', number)}]"))
    return tuple(typed_rows)
