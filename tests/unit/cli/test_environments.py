"""What the app's tests see of the shell from which somebody deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_script.cli.environments import environment_of_tests
from circuit_script.config import Settings
from circuit_script.settings_deploy import DeploySettings, EnvironmentSettings


def test_no_database_and_no_secret_of_the_shell_reaches_the_tests_of_a_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("DATABASE_URL", "PRODUCTION", "OPENAI_API_KEY", "HUBSPOT", "CIRCUIT_CRM_TOKEN", "CIRCUIT_SEE__SENTRY_DSN")
    for name in names:
        monkeypatch.setenv(name, "hunter2")
    for name in ("CIRCUIT_APP", "CIRCUIT_TEST_DATABASE_URL", "OUR_FLAG", "PYTEST_ADDOPTS"):
        monkeypatch.setenv(name, "said")
    settings = Settings.model_construct(
        folder=tmp_path,
        env={"production": EnvironmentSettings(database_env="PRODUCTION")},
        deploy=DeploySettings(test_environment=("OUR_FLAG", "NOT_SET")),
    )

    seen = environment_of_tests(settings)

    assert "hunter2" not in seen.values()
    kept = ("CIRCUIT_APP", "CIRCUIT_TEST_DATABASE_URL", "OUR_FLAG")
    assert [seen.get(name) for name in kept] == ["said"] * 3
    assert "PYTEST_ADDOPTS" not in seen, "it may leave out the test that fails"
    assert "PATH" in seen
    assert "NOT_SET" not in seen
