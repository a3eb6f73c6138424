"""The kinds of fields that people send: strict bodies, and texts that a database can hold."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_ID = 2**31 - 1  # PostgreSQL's INTEGER
UNSET: Any = None  # default of a field that may be left out but not be null; see `given`

_ONE_LINE = re.compile(r"[^\x00-\x1f\x7f]*")


def _one_line(text: str) -> str:
    if not _ONE_LINE.fullmatch(text):
        raise ValueError("must be one line without control characters")
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


def _no_nul(text: str) -> str:
    if "\0" in text:
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
Uuid = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]

# Spelt out, because a strict body takes a text for a Literal but not for an Enum;
# a test compares them with the enums in adapters.contract.
TaskName = Literal[
    "image_classification",
    "object_detection",
    "instance_segmentation",
    "semantic_segmentation",
    "pose_estimation",
    "oriented_detection",
]
FormatName = Literal["imagefolder", "yolo", "coco", "masks"]


class Body(BaseModel):
    """What a request's body holds: no field more, no '5' for 5."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none_is_empty(cls, sent: Any) -> Any:
        """Take no body for one without fields."""
        return {} if sent is None else sent


def given(body: Body) -> dict[str, Any]:
    """Return the fields that a request names, and no default."""
    return {name: getattr(body, name) for name in body.model_fields_set}


def field_errors(error: ValidationError, *, prefix: str = "") -> dict[str, list[str]]:
    """Return messages by field, the path to a nested field joined by dots.

    What was sent is not repeated: it may be a password.
    """
    errors: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join([*filter(None, [prefix]), *(str(part) for part in item["loc"])]) or "body"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "There is no such field"
        elif item["type"] == "missing":
            message = "This field is required"
        elif item["type"] == "too_long" and message.startswith("Value should"):
            # What pydantic says of a text that a validator of ours has seen first.
            message = message.replace("items after validation", "characters")
        errors.setdefault(field, []).append(message)
    return errors
