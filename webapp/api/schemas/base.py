"""What all schemas share: queries, pages, problems, times in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from adapters.wire import format_time
from webapp.services.paging import Page

UtcTime = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


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
