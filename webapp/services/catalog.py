"""What a job may name: the frameworks and their models, known without importing any of them."""

from __future__ import annotations

import base64
import difflib
from dataclasses import dataclass

from adapters import catalog, weights
from adapters.catalog import ModelEntry
from webapp.config import settings
from webapp.services.errors import Invalid
from webapp.services.paging import Page


@dataclass(frozen=True)
class Model:
    """A model, and where its pretrained weights would come from."""

    framework: str
    name: str
    task_types: tuple[str, ...]
    params_m: float
    input_size: int
    pretrained: str  # cached | download | none


def list_models(
    *,
    framework: str | None,
    task_type: str | None,
    q: str | None,
    limit: int,
    cursor: str | None,
) -> Page[Model]:
    """Return models whose name has every word of ``q``, by framework and name."""
    words = (q or "").lower().split()
    found = [
        entry
        for entry in catalog.models(framework)
        if (task_type is None or task_type in entry.task_types)
        and all(word in entry.name.lower() for word in words)
    ]
    found.sort(key=_key)
    after = _decode(cursor) if cursor else ("", "")
    rest = [entry for entry in found if _key(entry) > after]
    items = [_model(entry) for entry in rest[:limit]]
    next_cursor = _encode(rest[limit - 1]) if len(rest) > limit else None
    return Page(items=items, next_cursor=next_cursor, total=len(found))


def similar_models(framework: str, name: str) -> list[str]:
    """Return the names of a framework's models that a misspelt one may have meant."""
    names = [entry.name for entry in catalog.models(framework)]
    return difflib.get_close_matches(name, names, n=3)


def _model(entry: ModelEntry) -> Model:
    if weights.find_weights(settings().weights, entry.framework, entry.name) is not None:
        pretrained = "cached"
    else:
        pretrained = "download" if entry.pretrained else "none"
    return Model(
        framework=entry.framework,
        name=entry.name,
        task_types=entry.task_types,
        params_m=entry.params_m,
        input_size=entry.input_size,
        pretrained=pretrained,
    )


def _key(entry: ModelEntry) -> tuple[str, str]:
    return entry.framework, entry.name


def _encode(entry: ModelEntry) -> str:
    return base64.urlsafe_b64encode("\n".join(_key(entry)).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[str, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        framework, name = text.split("\n")
    except ValueError:
        raise Invalid({"cursor": ["is not a next_cursor of this list"]}) from None
    return framework, name
