"""What a service refuses, each with the HTTP status that says so.

ServiceError
├── Invalid          422  a field is wrong; ``errors`` holds messages by field
├── Unauthorized     401  who are you
├── Forbidden        403  you may know that it exists, but not do this
├── NotFound         404
├── Refused          400  it is in the wrong status for this
├── Conflict         409
└── Unavailable      503  something that is needed does not answer
"""

from __future__ import annotations


class ServiceError(Exception):
    """A request that is refused; the text is shown to the person who made it."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Invalid(ServiceError):
    status = 422
    title = "Some fields are wrong"

    def __init__(self, errors: dict[str, list[str]]) -> None:
        first_field, messages = next(iter(errors.items()))
        super().__init__(f"{first_field}: {messages[0]}")
        self.errors = errors


class Unauthorized(ServiceError):
    status = 401
    title = "Not logged in"


class Forbidden(ServiceError):
    status = 403
    title = "Not allowed"


class NotFound(ServiceError):
    status = 404
    title = "Not found"


class Refused(ServiceError):
    status = 400
    title = "Not possible now"


class Conflict(ServiceError):
    status = 409
    title = "Conflict"


class Unavailable(ServiceError):
    status = 503
    title = "Service unavailable"
