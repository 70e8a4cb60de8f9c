"""What `circuit-script test` refuses before a test runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from circuit_script.cli.test import run as run_tests


def test_real_models_are_not_asked_again_on_each_change(tmp_path: Path) -> None:
    """What was recorded is a change of the app's files: it would go on for as long as there is money."""
    with pytest.raises(typer.BadParameter, match="record once, then --watch"):
        run_tests(folder=tmp_path, watch=True, record=True)
