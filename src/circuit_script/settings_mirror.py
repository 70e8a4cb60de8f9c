"""Sources that an old service still answers, while ours is compared with it."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PLACE = re.compile(r"[^\s.]+(\.[^\s.]+)*")
ENV = "env:"


class MirrorSettings(BaseModel):
    """The old service behind ``[mirror.SOURCE]``. ``url`` is where deliveries go (``env:NAME`` reads it from the
    environment; ``{account}`` in it is the account that the path names); it has ``timeout`` seconds to answer.

    ``compare`` maps a place in the old JSON answer ("score", "lead.score") to the field that ours writes
    ("Contact.score"). ``within`` is how far two numbers may be apart.
    ``callouts`` are the hosts that ours may call meanwhile, ``models`` says whether it may ask models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1)
    timeout: float = Field(default=30.0, gt=0, le=300)
    compare: dict[str, str] = {}
    within: dict[str, float] = {}
    callouts: tuple[str, ...] = ()
    models: bool = False

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value.startswith(ENV):
            return _checked(value)
        if not re.fullmatch(r"[A-Za-z_]\w*", value.removeprefix(ENV)):
            raise ValueError("env: must be followed by the name of a variable of the environment")
        return value

    @model_validator(mode="after")
    def _rules(self) -> MirrorSettings:
        for old, ours in self.compare.items():
            if not PLACE.fullmatch(old):
                raise ValueError(f"compare: {old!r} must be a place in the old answer, like score or lead.score")
            if not PLACE.fullmatch(ours) or "." not in ours or ours.startswith("answer."):
                raise ValueError(f"compare: {ours!r} must be a field that ours writes, like Contact.score")
        for place, most in self.within.items():
            if place not in self.compare:
                raise ValueError(f"within: {place!r} is not compared; there are {', '.join(self.compare) or 'none'}")
            if not 0 <= most < float("inf"):
                raise ValueError(f"within: {place} must be 0 or more")
        return self

    @property
    def address(self) -> str:
        """``url`` itself, or what its variable says. Raises ValueError where that is nothing, or no address."""
        if not self.url.startswith(ENV):
            return self.url
        name = self.url.removeprefix(ENV)
        value = os.environ.get(name, "")
        if not value:
            raise ValueError(f"{name} is not set in the environment")
        try:
            return _checked(value)
        except ValueError:
            raise ValueError(f"{name} must be an address like https://old.example.com/webhook") from None


def _checked(value: str) -> str:
    parts = urlsplit(value)
    odd = any(not sign.isprintable() or sign.isspace() for sign in value)
    if parts.scheme not in ("http", "https") or not parts.hostname or odd or parts.fragment:
        raise ValueError("must be an address like https://old.example.com/webhook")
    _ = parts.port  # raises ValueError for one that is none
    if "{account}" in parts.netloc:
        raise ValueError("{account} may stand in the path and behind the ?, not in the host")
    return value
