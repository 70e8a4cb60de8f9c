"""What the options of `deploy --shadow` mean."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import typer

from circuit_script.cli.deploy_shadow import Asked, asked_for, share_of
from circuit_script.config import Settings
from circuit_script.settings_shadow import ShadowSettings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(folder=tmp_path, shadow=ShadowSettings(sample=0.5))


@pytest.mark.parametrize(
    ("said", "share"), [("0.1%", 0.001), ("0.2", 0.2), ("20 %", 0.2), ("100%", 1.0), ("0", 0.0), ("1.0", 1.0)]
)
def test_a_share_is_a_percentage_or_a_part_of_one(said: str, share: float) -> None:
    assert share_of(said, "--sample") == pytest.approx(share)


@pytest.mark.parametrize("said", ["", "5", "101%", "-1%", "0,1%", "1e-3", "a tenth", "%"])
def test_what_is_no_share_is_refused(said: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"must be like 0\.1% or 0\.2"):
        share_of(said, "--sample")


def test_what_is_not_said_is_what_the_settings_say(settings: Settings) -> None:
    assert asked_for(settings, True, None, None, None, 100) == Asked(None, 0.5, None, 100)
    assert asked_for(settings, True, "1h", "20%", "0.1%", 5) == Asked(timedelta(hours=1), 0.2, 0.001, 5)
    assert asked_for(settings, False, None, None, None, 100) is None


@pytest.mark.parametrize(
    ("shadow", "span", "sample", "below", "says"),
    [
        (False, "1h", None, None, "go with --shadow"),
        (False, None, None, "1%", "go with --shadow"),
        (True, None, None, "1%", "needs an end"),
        (True, "soon", None, None, "must be like 30s"),
        (True, "1h", "0%", None, "of nothing"),
    ],
)
def test_what_makes_no_sense_together_is_refused(
    settings: Settings, shadow: bool, span: str | None, sample: str | None, below: str | None, says: str
) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        asked_for(settings, shadow, span, sample, below, 100)
