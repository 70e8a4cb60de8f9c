"""Settings of shadows: how much of live executions is recorded for them, and what is not compared."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

_FIELD = re.compile(r"[A-Za-z_][\w]*\.[A-Za-z_@][\w@.-]*")


class ShadowSettings(BaseModel):
    """``sample`` is the share of live executions that is recorded while a shadow is open, unless `deploy --shadow` says
    another; a worker records ``most_per_second``, each of at most ``largest`` bytes as it is stored; they are kept for
    ``keep_days``. ``ignore`` are fields that may differ, as "Contact.scored_at": moments and what is made of chance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: float = Field(default=1.0, gt=0, le=1)
    most_per_second: int = Field(default=50, ge=1, le=10_000)
    largest: int = Field(default=262_144, ge=1_024, le=16_777_216)
    keep_days: int = Field(default=7, ge=1, le=90)
    ignore: tuple[str, ...] = ()

    @field_validator("ignore")
    @classmethod
    def _fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _FIELD.fullmatch(each):
                raise ValueError(f'{each!r} is no field of an object, as "Contact.scored_at" is')
        return value
