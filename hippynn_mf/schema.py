"""What is stored as JSON: strict objects, and one way to say what is wrong with a content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hippynn_mf.errors import LONGEST_VALUE, UserError, shown

N_SHOWN = 3  # wrong fields that a message names
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of what is stored as JSON: no unknown fields, no conversions, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StrictKeys(BaseModel):
    """What a user asks for: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validate_json(model: type[Model], content: object, source: object, remedy: str) -> Model:
    """An object of `model` from JSON content; a UserError that names file and fields otherwise."""
    if not isinstance(content, Mapping):
        raise UserError(
            f"{source}: an object was expected, found {shown(content)}. Restore it, or {remedy}."
        )
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(
            f"{source} is not what hippynn_mf writes: {describe_errors(error)}. Restore it, or "
            f"{remedy}."
        ) from None


def describe_errors(error: ValidationError) -> str:
    """The first wrong fields of a validation error, each with what is wrong and what was found."""
    details = error.errors(include_url=False)
    texts = []
    for detail in details[:N_SHOWN]:
        field = ".".join(map(str, detail["loc"]))[:LONGEST_VALUE]
        found = "" if isinstance(detail["input"], dict) else f", found {shown(detail['input'])}"
        message = detail["msg"].removeprefix("Value error, ")[: 5 * LONGEST_VALUE]
        texts.append(f"{field}: {message}{found}" if field else message)
    if len(details) > N_SHOWN:
        texts.append(f"and {len(details) - N_SHOWN} more")
    return "; ".join(texts)
