"""What all schemas share: strict bodies, texts that a database can hold, times in UTC."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from adapters.wire import format_time
from webapp.services.paging import Page

MAX_ID = 2**31 - 1  # PostgreSQL's INTEGER
UNSET: Any = None  # default of a field that may be left out but not be null; see `given`

_ONE_LINE = re.compile(r"[^\x00-\x1f\x7f]*")
_LINES = re.compile(r"[^\x00]*")


def _one_line(text: str) -> str:
    if not _ONE_LINE.fullmatch(text):
        raise ValueError("must be one line without control characters")
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


def _no_nul(text: str) -> str:
    if not _LINES.fullmatch(text):
        raise ValueError("must not contain the character NUL")
    return text


# A name on one line. The pattern says in JSON Schema what the validator says in words.
Line = Annotated[
    str,
    AfterValidator(_one_line),
    Field(
        min_length=1,
        json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]*[!-~\xa1-\uffff][^\x00-\x1f\x7f]*$"},
    ),
]
# A text of several lines.
Lines = Annotated[str, AfterValidator(_no_nul), Field(json_schema_extra={"pattern": r"^[^\x00]*$"})]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
UtcTime = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Body(BaseModel):
    """What a request's body holds: no field more, no '5' for 5."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Query(BaseModel):
    """What a request's address holds after the question mark."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Out(BaseModel):
    """What an answer holds; made from rows or from dictionaries."""

    model_config = ConfigDict(from_attributes=True)


class PageQuery(Query):
    limit: int = Field(50, ge=1, le=200, description="How many items at most")
    cursor: str | None = Field(
        None, max_length=1000, description="`next_cursor` of the page before this one"
    )


class PageOut(Out):
    """A page of a list."""

    next_cursor: str | None = Field(description="Ask with it for the next page; null on the last")
    total: int = Field(description="How many there are on all pages")


class Problem(Out):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    errors: dict[str, list[str]] | None = Field(
        None, description="For validation: messages by field"
    )


def dump(model: type[Out], value: Any) -> dict[str, Any]:
    """Return the JSON form of a row or a dictionary."""
    return model.model_validate(value).model_dump(mode="json")


def page(model: type[Out], found: Page[Any]) -> dict[str, Any]:
    """Return the JSON form of a page of rows."""
    items = [dump(model, item) for item in found.items]
    return {"items": items, "next_cursor": found.next_cursor, "total": found.total}


def given(body: Body) -> dict[str, Any]:
    """Return the fields that a request names, and no default."""
    return {name: getattr(body, name) for name in body.model_fields_set}
