"""Every setting, read from the environment in this one place.

Each setting is a row of :data:`SETTINGS`: its variable, how it is read, its default and its
meaning. ``docs/settings.md`` is made from the same rows, so the table cannot go stale.
"""

from __future__ import annotations

import difflib
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from modelyard.errors import ModelyardError

PREFIX = "MODELYARD_"
EXECUTION_MODES = ("celery", "subprocess", "api")


class SettingsError(ModelyardError):
    """A setting is wrong; the message names it and says what would be right."""


@dataclass(frozen=True)
class Setting:
    variable: str
    field: str
    read: Callable[[str], Any]
    default: str | None  # as text; None: derived from the home folder or from another setting
    meaning: str
    derived: str = ""  # what the documentation says in place of a default


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}") from None
        if not low <= number <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return number

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"a number from {low:g} to {high:g}") from None
        if not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return number

    return read


_SIZE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _size(text: str) -> int:
    """Read '500 MB' as bytes."""
    number, unit = text.strip()[:-2].strip(), text.strip()[-2:]
    if not number.isdecimal() or unit not in _SIZE_UNITS or int(number) == 0:
        raise ValueError("a whole number with kB, MB, GB or TB, like 500 MB")
    return int(number) * _SIZE_UNITS[unit]


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return read


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that is not empty")
    return text


def _folder(text: str) -> Path:
    if not text.strip():
        raise ValueError("a folder's path")
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"a folder; {path} is a file")
    return path


def _folders(text: str) -> tuple[Path, ...]:
    if not text.strip(":").strip():
        raise ValueError("folders separated by colons")
    return tuple(_folder(part) for part in text.split(":") if part)


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        scheme = text.partition("://")[0].lower()
        if scheme.partition("+")[0] not in schemes:
            raise ValueError("a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        try:
            _ = urlsplit(text).port
        except ValueError:
            raise ValueError(
                "a URL whose host and port can be read, like "
                f"{schemes[0]}://user:password@host:1234/name; in a password, write '/', '@', ':', "
                "'#', '[' and ']' as %2F, %40, %3A, %23, %5B and %5D"
            ) from None
        return text

    return read


def _database_url(text: str) -> str:
    url = _url("sqlite", "postgresql", "postgres")(text)
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):  # the driver that is installed, whoever wrote the URL
        return f"postgresql+psycopg://{rest}"
    return url


def _store(text: str) -> str:
    """Read an address of a store; a secret in it would be shown and logged."""
    parts = urlsplit(text)
    if not parts.scheme or "://" not in text or parts.password or parts.query:
        raise ValueError("a URL without credentials, like s3://bucket/prefix or file:///mnt/store")
    return text.rstrip("/")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("names separated by commas")
    return names


def _gpus(text: str) -> tuple[int, ...] | None:
    if text.strip() == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("GPU numbers separated by commas, like 0,1, or 'all'") from None


def _secret(text: str) -> str:
    if len(text.encode()) < 32:
        raise ValueError("at least 32 bytes, for example from: openssl rand -hex 32")
    return text


_WORKER_NAME_FORBIDDEN = set("@ /\\:*?\"'<>|\n\t")


def _worker_name(text: str) -> str:
    if not text or len(text) > 64 or _WORKER_NAME_FORBIDDEN & set(text):
        raise ValueError("1 to 64 characters without spaces, '@', '/', ':' or quotes")
    return text


SETTINGS: tuple[Setting, ...] = (
    Setting("MODELYARD_HOME", "home", _folder, "~/.modelyard",
            "Folder of everything Modelyard keeps: database, Redis log, outputs, keys."),
    Setting("MODELYARD_HOST", "host", _text, "127.0.0.1",
            "Address the web process listens on."),
    Setting("MODELYARD_PORT", "port", _integer(0, 65535), "8808",
            "Port of the web process; 0 takes a free one."),
    Setting("MODELYARD_WEB_PROCESSES", "web_processes", _integer(1, 64), "2",
            "Number of gunicorn processes; each carries a thousand open pages."),
    Setting("MODELYARD_FLOWER_PORT", "flower_port", _integer(0, 65535), "0",
            "Port of Flower; 0 takes a free one."),
    Setting("MODELYARD_FLOWER_USER", "flower_user", _text, "admin",
            "User name that Flower asks for."),
    Setting("MODELYARD_FLOWER_PASSWORD", "flower_password", _text, None,
            "Password that Flower asks for.", "made at the first start, in `flower.password`"),
    Setting("MODELYARD_FLOWER_URL", "flower_url", _url("http", "https"), None,
            "Where the dashboard's link to Flower leads.", "set by `modelyard up`"),
    Setting("MODELYARD_REDIS_PORT", "redis_port", _integer(0, 65535), "0",
            "Loopback port of the embedded Redis-compatible server; 0 takes a free one."),
    Setting("REDIS_URL", "redis_url", _url("redis", "rediss"), None,
            "Broker, results and events. Setting it switches the embedded server off.",
            "the embedded server of `modelyard up`"),
    Setting("DATABASE_URL", "database_url", _database_url, None,
            "PostgreSQL or SQLite.", "SQLite, `modelyard.db` in the home folder"),
    Setting("TRAINING_EXECUTION_MODE", "execution_mode", _choice(*EXECUTION_MODES), "celery",
            "How jobs reach what trains them: `celery` through Redis queues, `subprocess` on this "
            "host with no broker, `api` to training services (not in this version)."),
    Setting("MODELYARD_DATA_ROOTS", "data_roots", _folders, None,
            "Folders, separated by colons, below which data sets may lie; links that lead out "
            "are refused.", "`data` in the home folder"),
    Setting("MODELYARD_UPLOADS", "uploads", _folder, None,
            "Folder of uploaded data sets; the same on web and worker hosts.",
            "`uploads` in the home folder"),
    Setting("MODELYARD_UPLOAD_SIZE", "upload_bytes", _size, "20 GB",
            "Largest archive that may be uploaded."),
    Setting("MODELYARD_UPLOAD_UNPACKED_SIZE", "upload_unpacked_bytes", _size, "100 GB",
            "Most that an archive may hold, counted while it is unpacked."),
    Setting("MODELYARD_UPLOAD_RATIO", "upload_ratio", _number(1, 10000), "100",
            "Largest ratio of what an archive holds to its own size; more is a bomb."),
    Setting("MODELYARD_UPLOAD_FILES", "upload_files", _integer(1, 10000000), "1000000",
            "Most files and folders that an archive may hold."),
    Setting("MODELYARD_OUTPUTS", "outputs", _folder, None,
            "Folder of checkpoints, artifacts and events; the same on web and worker hosts, unless "
            "there is a `MODELYARD_STORE`.",
            "`outputs` in the home folder"),
    Setting("MODELYARD_STORE", "store", _store, None,
            "Where outputs and data sets lie for hosts that share no disk: `s3://bucket/prefix`, "
            "`file:///mnt/x` or another address that fsspec knows. Credentials come from the "
            "environment that its library reads. See docs/operations.md.",
            "none: the outputs folder is shared"),
    Setting("MODELYARD_DATA_CACHE", "data_cache", _folder, None,
            "Folder of data sets that a worker has fetched from the store.",
            "`cache/datasets` in the home folder"),
    Setting("MODELYARD_DATA_CACHE_SIZE", "data_cache_bytes", _size, "200 GB",
            "Most that fetched data sets may take; those used longest ago go first."),
    Setting("MODELYARD_WEIGHTS", "weights", _folder, None,
            "Folder of pretrained weights.", "`weights` in the home folder"),
    Setting("MODELYARD_SECRET_KEY", "secret_key", _secret, None,
            "Signs tokens; at least 32 bytes, the same for all web processes.",
            "made at the first start, in `secret.key`"),
    Setting("MODELYARD_REGISTRATION", "registration", _choice("open", "closed"), "open",
            "Whether people may register themselves."),
    Setting("MODELYARD_ADMIN_EMAIL", "admin_email", _text, "admin@modelyard.local",
            "Address of the administrator that the first start creates."),
    Setting("MODELYARD_ADMIN_PASSWORD", "admin_password", _text, None,
            "Password of that administrator.", "made at the first start and printed once"),
    Setting("MODELYARD_ACCESS_TOKEN_SECONDS", "access_token_seconds", _integer(60, 86400), "900",
            "Life of an access token."),
    Setting("MODELYARD_REFRESH_TOKEN_SECONDS", "refresh_token_seconds",
            _integer(3600, 31536000), "2592000", "Life of a refresh token."),
    Setting("MODELYARD_LOGIN_LIMIT", "login_limit", _text, "10 per minute",
            "Failed logins allowed per address before 429."),
    Setting("MODELYARD_FRAMEWORKS", "frameworks", _names, None,
            "Frameworks that the worker serves, separated by commas.", "those installed"),
    Setting("MODELYARD_GPUS", "gpus", _gpus, None,
            "GPUs that the worker may use, like `0,1`; one that is named twice trains two jobs at "
            "once. Empty: none.", "`all`"),
    Setting("MODELYARD_GPUS_PER_SLOT", "gpus_per_slot", _integer(1, 16), "1",
            "How many GPUs each job gets; the worker has a slot for each such group."),
    Setting("MODELYARD_WORKER_NAME", "worker_name", _worker_name, None,
            "Name of the worker, unique in the team.", "the host's name"),
    Setting("MODELYARD_MAX_ATTEMPTS", "max_attempts", _integer(1, 100), "3",
            "Attempts after which a job whose worker is lost fails."),
    Setting("MODELYARD_CANCEL_GRACE_SECONDS", "cancel_grace_seconds", _seconds(0, 3600), "10",
            "Time a cancelled child has to write its checkpoint before it is killed."),
    Setting("MODELYARD_SHUTDOWN_GRACE_SECONDS", "shutdown_grace_seconds", _seconds(0, 3600), "10",
            "Time the children of a worker that shuts down have to write their checkpoints."),
    Setting("MODELYARD_STALL_SECONDS", "stall_seconds", _seconds(0, 604800), "1800",
            "Time without a step after which a child hangs and is killed; 0: never."),
    Setting("MODELYARD_ATTEMPT_SECONDS", "attempt_seconds", _seconds(0, 31536000), "0",
            "Time after which an attempt is ended as failed; 0: none. Resuming goes on."),
    Setting("MODELYARD_KEEP_LAST_DAYS", "keep_last_days", _integer(0, 36500), "30",
            "Days after a job's end for which its last checkpoint is kept, so that it can be "
            "resumed; 0: for ever. The best one is kept until the job is deleted."),
    Setting("MODELYARD_SPOT_NOTICE", "spot_notice", _text, None,
            "Command that the worker runs every 5 s; when it succeeds, the machine is about to be "
            "taken away and jobs are handed back. See docs/operations.md.", "none"),
    Setting("MODELYARD_REDIS_AWAY", "redis_away", _choice("pause", "train"), "pause",
            "What training does once Redis has not answered for a lease time (30 s). `train` only "
            "where no worker can be cut off from Redis alone, as on one host: a job could "
            "otherwise be trained twice."),
    Setting("MODELYARD_THREADS", "threads", _integer(0, 1024), "0",
            "CPU threads of a training child; 0 leaves it to the framework."),
    Setting("MODELYARD_LOG_LEVEL", "log_level", _choice("debug", "info", "warning", "error"),
            "info", "What the processes log."),
)  # fmt: skip

_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Settings:
    """The settings of one process; see :data:`SETTINGS` for the meaning of each."""

    home: Path
    host: str
    port: int
    web_processes: int
    flower_port: int
    flower_user: str
    flower_password: str | None
    flower_url: str | None
    redis_port: int
    redis_url: str | None
    database_url: str
    execution_mode: str
    data_roots: tuple[Path, ...]
    uploads: Path
    upload_bytes: int
    upload_unpacked_bytes: int
    upload_ratio: float
    upload_files: int
    outputs: Path
    store: str | None
    data_cache: Path
    data_cache_bytes: int
    weights: Path
    secret_key: str | None
    registration: str
    admin_email: str
    admin_password: str | None
    access_token_seconds: int
    refresh_token_seconds: int
    login_limit: str
    frameworks: tuple[str, ...] | None
    gpus: tuple[int, ...] | None
    gpus_per_slot: int
    worker_name: str
    max_attempts: int
    cancel_grace_seconds: float
    shutdown_grace_seconds: float
    stall_seconds: float
    attempt_seconds: float
    keep_last_days: int
    spot_notice: str | None
    redis_away: str
    threads: int
    log_level: str

    @property
    def dataset_roots(self) -> tuple[Path, ...]:
        """The folders below which a job's data set may lie."""
        return (*self.data_roots, self.uploads)

    def require_redis(self) -> str:
        """Return the Redis URL. Raises SettingsError where none is set."""
        if self.redis_url is None:
            raise SettingsError(
                "REDIS_URL is not set; set it to redis://:password@host:6379/0, "
                "or start everything with: modelyard up; for an instance that runs on this machine "
                'say: eval "$(modelyard env)"'
            )
        return self.redis_url

    def signing_key(self) -> str:
        """Return the key that signs tokens, making it in the home folder at the first call."""
        return self.secret_key or kept_secret(self.home / "secret.key")

    def flower_login(self) -> tuple[str, str]:
        """Return user and password of Flower, making the password at the first call."""
        password = self.flower_password or kept_secret(self.home / "flower.password", nbytes=12)
        return self.flower_user, password


def load_settings(environ: Mapping[str, str] | None = None, **overrides: str | None) -> Settings:
    """Read all settings: `overrides` (variables in lower case) before `environ` before `.env`.

    ``environ`` defaults to the process's environment; only then is a ``.env`` file in the
    working folder read. Raises SettingsError naming the first setting that is wrong.
    """
    if environ is None:
        from_file = {k: v for k, v in dotenv_values(".env").items() if v is not None}
        environ = {**from_file, **os.environ}
    merged = {name: value for name, value in environ.items() if name in _BY_VARIABLE}
    merged |= {name.upper(): value for name, value in overrides.items() if value is not None}
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = merged.get(setting.variable, setting.default)
        # An empty variable, as compose passes an unset one, means the default; no GPU is a choice.
        if text == "" and setting.field != "gpus":
            text = setting.default
        values[setting.field] = None if text is None else _read(setting, text)
    home: Path = values["home"]
    values["database_url"] = values["database_url"] or f"sqlite:///{home / 'modelyard.db'}"
    values["data_roots"] = values["data_roots"] or (home / "data",)
    values["uploads"] = values["uploads"] or home / "uploads"
    values["outputs"] = values["outputs"] or home / "outputs"
    values["data_cache"] = values["data_cache"] or home / "cache" / "datasets"
    values["weights"] = values["weights"] or home / "weights"
    values["worker_name"] = values["worker_name"] or socket.gethostname()
    return Settings(**values)


def settings_table() -> str:
    """Return the Markdown table of ``docs/settings.md``."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = setting.derived or f"`{setting.default}`"
        rows.append(f"| `{setting.variable}` | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"


def _read(setting: Setting, text: str) -> Any:
    try:
        return setting.read(text)
    except ValueError as error:
        # The value may be a password: a secret is never repeated in a message.
        hidden = {
            "secret_key", "admin_password", "flower_password", "redis_url", "database_url", "store",
        }  # fmt: skip
        shown = "" if setting.field in hidden else f" is '{text}' but"
        raise SettingsError(f"{setting.variable}{shown} must be {error}") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in environ:
        if name.startswith(PREFIX) and name not in _BY_VARIABLE:
            close = difflib.get_close_matches(name, _BY_VARIABLE, n=1)
            remedy = f"did you mean {close[0]}?" if close else "see docs/settings.md for the list"
            raise SettingsError(f"{name} is not a setting of Modelyard; {remedy}")


def kept_secret(path: Path, *, nbytes: int = 32) -> str:
    """Return the secret in a file only its owner may read, making it where there is none."""
    if path.exists():
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    write_private(mine, secrets.token_hex(nbytes) + "\n")
    try:
        os.link(mine, path)  # of two processes that start at once, one wins and both read it
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, also while it is being written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
