"""Where releases are deployed to, and what is asked of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from circuit_script.settings_spans import SPAN


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeploySettings(_Section):
    """What a release is held to. ``import_seconds`` are the most that importing it may take: so long does a worker that
    has not prepared it start nothing. ``warm_seconds`` are how long `deploy` waits until every worker has it ready,
    ``watch`` ("10m") is how long its errors are watched once it is live. ``test_environment`` names variables of the
    shell that its tests get, who get no others that may be secret; ``allow_files`` ("tests/key.json") are files that
    look like secrets, and are none."""

    import_seconds: float = Field(default=10.0, gt=0, le=60)
    warm_seconds: float = Field(default=300.0, gt=0, le=3600)
    watch: str = Field(default="10m", pattern=SPAN)
    test_environment: tuple[str, ...] = ()
    allow_files: tuple[str, ...] = ()


class EnvironmentSettings(_Section):
    """A place where releases go live: the database that its workers share. ``database_env`` names the environment
    variable that holds its URL, which is a secret and stands in no file."""

    database_env: str = Field(pattern=r"^[A-Za-z_]\w*$")
