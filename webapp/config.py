"""Flask's configuration, made from Modelyard's settings."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from flask import current_app

from modelyard.settings import Settings
from webapp.login_limit import check_limit

MAX_BODY_BYTES = 1024 * 1024  # what the API takes; a job's description is a few kilobytes
_POOL_SIZE = 10  # connections a process keeps; times two processes, well below PostgreSQL's 100
_POOL_OVERFLOW = 15
# With a PostgreSQL whose host is gone without a word: the kernel would wait for hours.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds in which nothing that was sent is acknowledged
}


def configuration(settings: Settings) -> dict[str, Any]:
    """Return the configuration of an application with these settings."""
    return {
        "MODELYARD": settings,
        "EXECUTION_MODE": settings.execution_mode,
        "MAX_CONTENT_LENGTH": MAX_BODY_BYTES,
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": _engine_options(settings.database_url),
        **_tokens(settings),
        **_limits(settings),
    }


def settings() -> Settings:
    """Return the settings of the application at work."""
    found: Settings = current_app.config["MODELYARD"]
    return found


def _engine_options(url: str) -> dict[str, Any]:
    if url == "sqlite://" or ":memory:" in url:
        return {}
    options: dict[str, Any] = {
        "pool_size": _POOL_SIZE,
        "max_overflow": _POOL_OVERFLOW,
        "pool_timeout": 10,  # a person waits: better a 503 than a page that hangs
        # The connection that was used last is used first: each may come to hold a copy of the
        # database's pages in use, up to 2 MB on SQLite, so few of them should be in use.
        "pool_use_lifo": True,
    }
    if url.startswith("postgresql"):
        options |= {"pool_pre_ping": True, "connect_args": _PATIENCE}
    return options


def _tokens(settings: Settings) -> dict[str, Any]:
    key = settings.signing_key()
    # Cookies do not tell ports apart: two instances on one host need names of their own.
    instance = hashlib.sha256(b"cookie names:" + key.encode()).hexdigest()[:8]
    return {
        "JWT_SECRET_KEY": key,
        "JWT_ALGORITHM": "HS256",
        "JWT_TOKEN_LOCATION": ["headers", "cookies"],
        "JWT_ACCESS_TOKEN_EXPIRES": timedelta(seconds=settings.access_token_seconds),
        "JWT_REFRESH_TOKEN_EXPIRES": timedelta(seconds=settings.refresh_token_seconds),
        "JWT_COOKIE_SAMESITE": "Lax",
        "JWT_COOKIE_CSRF_PROTECT": True,
        "JWT_ACCESS_COOKIE_NAME": f"modelyard_access_{instance}",
        "JWT_REFRESH_COOKIE_NAME": f"modelyard_refresh_{instance}",
        "JWT_ACCESS_CSRF_COOKIE_NAME": f"modelyard_csrf_{instance}",
        "JWT_REFRESH_CSRF_COOKIE_NAME": f"modelyard_csrf_refresh_{instance}",
    }


def _limits(settings: Settings) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "LOGIN_LIMIT": check_limit(settings.login_limit),
        # Said each time: the limiter is shared by all applications of a process.
        "RATELIMIT_ENABLED": True,
        "RATELIMIT_HEADERS_ENABLED": True,
        "RATELIMIT_KEY_PREFIX": "modelyard",
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,  # Redis away: each process counts alone
    }
    if settings.redis_url:
        limits["RATELIMIT_STORAGE_URI"] = settings.redis_url
        limits["RATELIMIT_STORAGE_OPTIONS"] = {
            "socket_timeout": 1,
            "socket_connect_timeout": 1,
        }
    else:
        limits["RATELIMIT_STORAGE_URI"] = "memory://"
    return limits
