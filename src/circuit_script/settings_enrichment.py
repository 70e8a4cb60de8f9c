"""Settings of enrichment: who is asked about leads, how much, and where our own locations are. Keys are secrets."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

EVERY_TENANT = "*"
ADDRESS = r"^https?://[^\s?#]+[^\s?#/]$"
_TAKEN = frozenset(
    {"census", "maps", "linkedin", "reasons", "latitude", "longitude", "state", "county", "tract", "match", "at"}
    | {"distance_miles", "title", "industry", "id"}
)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]{1,20}_[A-Z0-9_]{1,20}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CensusSettings(_Section):
    """The geocoder and the data of the United States' Census Bureau. ``year`` is the last one of the survey (five-year
    ACS), ``variables`` what is read of it, by the names that they have here; at most ``states`` are asked about in one
    batch. The secret ``census.key`` is sent where there is one. ``timeout`` in seconds."""

    url: str = Field(default="https://geocoding.geo.census.gov/geocoder", pattern=ADDRESS)
    data_url: str = Field(default="https://api.census.gov/data", pattern=ADDRESS)
    benchmark: str = Field(default="Public_AR_Current", pattern=r"^\w{1,60}$")
    vintage: str = Field(default="Current_Current", pattern=r"^\w{1,60}$")
    year: int = Field(default=2023, ge=2009, le=2100)
    variables: dict[str, str] = {"area_median_income": "B19013_001E"}
    states: int = Field(default=2, ge=0, le=60)
    timeout: float = Field(default=60.0, gt=0, le=600)

    @field_validator("variables")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > 50:
            raise ValueError("the Census Bureau answers 50 variables at most")
        for name, variable in value.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", name) or name in _TAKEN:
                raise ValueError(f"{name!r} is no name for a figure, or means something else")
            if not _VARIABLE.fullmatch(variable):
                raise ValueError(f"{name}: {variable!r} is no variable like B19013_001E")
        return value


class MapsSettings(_Section):
    """What business is where, of Google's Places. It costs a call for each company, so it is asked for only with
    ``category``, at most ``calls`` times in one batch; the key is the secret ``maps.key``."""

    category: bool = False
    url: str = Field(default="https://places.googleapis.com", pattern=ADDRESS)
    calls: int = Field(default=20, ge=1, le=1000)
    timeout: float = Field(default=10.0, gt=0, le=60)


class LinkedInSettings(_Section):
    """People's positions: of a ``csv`` file of the company's own (one for all, or by tenant), and of an API at ``url``,
    which gets the secret ``linkedin.token``: at most ``calls`` in one batch, and ``per_minute`` of a tenant.
    ``version`` is the API's, as YYYYMM."""

    csv: str | dict[str, str] = ""
    url: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    version: str = Field(default="", pattern=r"^(\d{6})?$")
    calls: int = Field(default=20, ge=1, le=1000)
    per_minute: int = Field(default=60, ge=1, le=100_000)
    timeout: float = Field(default=10.0, gt=0, le=60)


class EnrichmentSettings(_Section):
    """What CircuitDB.batch_enrich asks. ``locations`` are the tenants' own places as [latitude, longitude], by tenant;
    those of ``"*"`` are of every tenant that has none. ``remembered`` is how many answers a worker keeps in memory."""

    locations: dict[str, tuple[tuple[float, float], ...]] = {}
    census: CensusSettings = CensusSettings()
    maps: MapsSettings = MapsSettings()
    linkedin: LinkedInSettings = LinkedInSettings()
    remembered: int = Field(default=20_000, ge=0, le=1_000_000)

    @field_validator("locations")
    @classmethod
    def _on_earth(cls, value: dict[str, tuple[tuple[float, float], ...]]) -> dict[str, tuple[tuple[float, float], ...]]:
        for tenant, places in value.items():
            for latitude, longitude in places:
                if not (abs(latitude) <= 90 and abs(longitude) <= 180):
                    raise ValueError(f"{tenant}: [{latitude}, {longitude}] is no [latitude, longitude]")
        return value

    def places_of(self, tenant: str) -> tuple[tuple[float, float], ...]:
        """The tenant's own locations."""
        return self.locations.get(tenant) or self.locations.get(EVERY_TENANT, ())
