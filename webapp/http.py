"""What every answer carries: security headers, and a name for the request in the log."""

from __future__ import annotations

import logging
import secrets
import time

from flask import Flask, Response, g, request

logger = logging.getLogger(__name__)

# Nothing is fetched from elsewhere and nothing inline runs; the pages are built for it.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_YEAR_SECONDS = 365 * 24 * 3600


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    g.request_id = secrets.token_hex(8)
    g.request_began = time.monotonic()


def _finish(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = g.request_id
    if request.is_secure:
        response.headers.setdefault(
            "Strict-Transport-Security", f"max-age={_YEAR_SECONDS}; includeSubDomains"
        )
    if request.path.startswith("/api/"):
        # Answers differ by who asks; a shared cache must not keep them.
        response.headers.setdefault("Cache-Control", "no-store")
    seconds = time.monotonic() - g.request_began
    logger.debug("%s %s %d in %.3f s", request.method, request.path, response.status_code, seconds)
    return response
