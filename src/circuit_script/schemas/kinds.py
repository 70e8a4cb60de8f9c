"""Types of fields as CRMs send them, for schemas that `circuit-script objects pull` writes, and for your own.

Nothing may come as an empty text. Spelled ones come as text in webhooks: "80" is a number there, "many" is none.
Records stay as they came.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator

from circuit_script.schemas.model import Moment, Number

__all__ = ["Blank", "Flag", "Moment", "Number", "Parted", "SpelledFlag", "SpelledNumber", "SpelledWhole", "Whole"]

LONGEST_NUMBER = 400  # characters


def _blank(value: Any) -> Any:
    return None if value == "" else value


def _number(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > LONGEST_NUMBER:
        return value
    try:
        found = float(value)
    except ValueError:
        return _blank(value)
    return found if math.isfinite(found) else value


def _whole(value: Any) -> Any:
    found = _number(value)
    return int(found) if isinstance(found, float) and isinstance(value, str) and found.is_integer() else found


def _flag(value: Any) -> Any:
    return {"true": True, "false": False, "": None}.get(value.lower(), value) if isinstance(value, str) else value


def _parts(value: Any) -> Any:
    return ([each for each in value.split(";") if each] or None) if isinstance(value, str) else value


Blank = BeforeValidator(_blank)  # an empty text is nothing
Parted = BeforeValidator(_parts)  # several choices in one text: "a;b"
Whole = Annotated[int | None, Blank]
Flag = Annotated[bool | None, Blank]
SpelledNumber = Annotated[int | float | None, BeforeValidator(_number)]
SpelledWhole = Annotated[int | None, BeforeValidator(_whole)]
SpelledFlag = Annotated[bool | None, BeforeValidator(_flag)]
