"""Fields that the schemas of several frameworks have."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def number(default: float | None, low: float, high: float, description: str) -> Any:
    """Return a field of a finite number between two bounds, both allowed."""
    return Field(default, ge=low, le=high, allow_inf_nan=False, description=description)
