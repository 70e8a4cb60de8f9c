from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import FILE, VENDOR_GOHIGHLEVEL_KEY, Settings, load_settings
from circuit_script.errors import ConfigError
from circuit_script.governor import Limits, limits_of
from circuit_script.wiring.outside import make_callouts


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


def load(folder: Path, toml: str = "", **overrides: Any) -> Settings:
    (folder / FILE).write_text(toml)
    return load_settings(folder, **overrides)


def test_an_empty_folder_gives_the_documented_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)

    assert (settings.app, settings.database_url, settings.pooler) == ("app", None, False)
    assert (settings.gateway.host, settings.gateway.port, settings.gateway.max_waiting) == ("127.0.0.1", 8000, 5000)
    assert (settings.worker.children, settings.worker.attempts, settings.worker.hold) == (2, 5, 300)
    assert settings.sources.gohighlevel.public_key == VENDOR_GOHIGHLEVEL_KEY
    assert limits_of(settings.limits) == Limits()
    assert settings.state == tmp_path / ".circuit"


def test_everything_that_the_file_says_is_used(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        app = "acme.triggers"
        database_url = "postgresql://db/acme"
        [worker]
        children = 4
        [limits]
        memory = 67108864
        wall_time = 2.5
        [sources.standard.secrets]
        one = "whsec_b25l"
        rotating = ["whsec_b2xk", "whsec_bmV3"]
        [addresses.alerts]
        url = "https://hooks.example.com/a"
        [tenants.acme]
        gohighlevel = ["loc_1", "loc_2"]
        """,
    )

    assert (settings.app, settings.database_url, settings.worker.children) == (
        "acme.triggers",
        "postgresql://db/acme",
        4,
    )
    assert limits_of(settings.limits) == Limits(memory=67108864, wall_time=2.5)
    assert isinstance(limits_of(settings.limits).memory, int), "bytes go to the kernel as an integer"
    assert settings.sources.standard.secrets == {"one": ("whsec_b25l",), "rotating": ("whsec_b2xk", "whsec_bmV3")}
    assert settings.addresses["alerts"].url == "https://hooks.example.com/a"
    assert settings.accounts == {"acme": {"gohighlevel": ("loc_1", "loc_2")}}


def test_the_environment_wins_over_the_file_and_an_argument_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_GATEWAY__PORT", "8081")
    monkeypatch.setenv("CIRCUIT_APP", "from_env")
    monkeypatch.setenv("DATABASE_URL", "postgresql://from-env/x")
    toml = """
        app = "from_file"
        database_url = "postgresql://from-file/x"
        [gateway]
        port = 8080
        host = "0.0.0.0"
        """

    settings = load(tmp_path, toml, app="from_argument")

    assert settings.app == "from_argument"
    assert settings.gateway.port == 8081
    assert settings.gateway.host == "0.0.0.0", "the environment replaces one value, not its section"
    assert settings.database_url == "postgresql://from-env/x"


def test_environment_of_others_is_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9999")
    monkeypatch.setenv("APP", "other")

    assert (load(tmp_path).gateway.port, load(tmp_path).app) == (8000, "app")


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ("[gateway]\nport = 99999", ["gateway.port"]),
        ("[gateway]\nprot = 80", ["gateway.prot"]),
        ("[worker]\nchildren = 0\nlease = 0", ["worker.children", "worker.lease"]),
        ("[worker]\nbatch_size = 201", ["worker.batch_size"]),
        ("app = 'no module'", ["app"]),
        ("colour = 'red'", ["colour"]),
        ("[addresses.alerts]\nurl = 'ftp://x'", ["addresses.alerts.url"]),
        ("[tenants.acme]\ngohighlevel = 'loc_1'", ["tenants.acme.gohighlevel"]),
        ("[gateway\nport = 1", [FILE, "line 1"]),
    ],
)
def test_an_error_names_the_setting_and_is_not_a_stack_trace(tmp_path: Path, toml: str, names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)

    for name in names:
        assert name in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"app = '\xff'")

    with pytest.raises(ConfigError, match=FILE):
        load_settings(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()

    assert load_settings(tmp_path).app == "app"


def test_environment_that_is_not_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_TENANTS", "acme")

    with pytest.raises(ConfigError, match=r"environment.*tenants"):
        load(tmp_path)


@pytest.mark.parametrize(
    "toml",
    [
        "[sources.standard.secrets]\none = ['whsec_hunter2', 5]",
        "[addresses.alerts]\nurl = 'https://x'\nsecret = ['whsec_hunter2']",
        "[gateway]\nport = 'hunter2'",
        "database_url = ['postgresql://u:hunter2@h/x']",
    ],
)
def test_an_error_never_shows_a_value_since_it_may_be_a_secret(tmp_path: Path, toml: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_settings_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    settings = load(tmp_path)

    with pytest.raises(ValueError, match="frozen"):
        settings.app = "other"
    with pytest.raises(ValueError, match="frozen"):
        settings.gateway.port = 1


@pytest.mark.parametrize("value", [0, -1, True, "5", None, float("nan"), float("inf"), 2.5, 2**41])
def test_a_count_is_a_positive_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="limit callouts must be a positive whole number"):
        limits_of({"callouts": value})


def test_a_limit_that_does_not_exist_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"'memroy'.*'memory'"):
        limits_of({"memroy": 5})
    with pytest.raises(ConfigError, match=r"'x'.*callouts"):
        limits_of({"x": 5})


def test_objects_of_the_apps_own_are_named_in_the_file(tmp_path: Path) -> None:
    assert load(tmp_path).objects == ()
    assert load(tmp_path, 'objects = ["Shipment", "Parcel"]').objects == ("Shipment", "Parcel")
    with pytest.raises(ConfigError, match="objects"):
        load(tmp_path, "objects = 7")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("app = 'x'\n[gateway]\nport = 99999", r"circuit\.toml:3: gateway\.port must be at most 65535\. Mend it"),
        ("[gateway]\nprot = 80", r"circuit\.toml:2: there is no setting gateway\.prot\. Did you mean gateway\.port\?"),
        ("port = 80", r"circuit\.toml:1: there is no setting port\. Did you mean gateway\.port\?"),
        ("[addresses.a]\nsecret = 'x'", r"circuit\.toml:2: addresses\.a\.url is missing"),
        ("[addresses.a]\nurl = 'x'", r"addresses\.a\.url must begin with http:// or https://"),
        ("[addresses.a]\nurl = 'http://x'\nurll = ''", r"Did you mean addresses\.a\.url\?"),
        ("[worker]\nchildren = 'two'", r"worker\.children must be a whole number\."),
        ("pooler = 'x'\ngateway = 5", r"pooler must be true or false.*circuit\.toml:2: gateway must be a table"),
        ("[limits]\ncallouts = 'x'", r"circuit\.toml:2: limits\.callouts must be a number\. Mend"),
        ("[web]\nauth = 'x'", r"web\.auth must be 'key' or 'none'"),
    ],
)
def test_a_fault_of_the_file_is_told_with_its_line_in_plain_words(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, toml)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CIRCUIT_GATEWAY__PORT", "many", "gateway.port must be a whole number. Change CIRCUIT_GATEWAY__PORT"),
        ("CIRCUIT_GATEWAY__PROT", "1", "Did you mean gateway.port? Change CIRCUIT_GATEWAY__PROT"),
        ("CIRCUIT_GATWAY__PORT", "1", "Did you mean CIRCUIT_GATEWAY__PORT?"),
        ("CIRCUIT_DATABASE_URL", "x", "Did you mean DATABASE_URL?"),
        ("CIRCUIT_SOURCES__STANDARD__SECRETS", "x", "must be JSON"),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[gateway]\nport = 1")
    assert f"environment {name}: " in str(caught.value)
    assert words in str(caught.value)
    assert FILE not in str(caught.value), "the file is not to blame"


def test_a_fault_of_an_argument_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"argument --port: gateway\.port must be at most 65535\. Give --port another"
    ):
        load(tmp_path, "[gateway]\nport = 1", gateway={"port": 70000})


def test_variables_of_other_programs_and_of_our_tests_are_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CIRCUIT_BREAKER", "CIRCUIT_TEST_DATABASE_URL", "CIRCUIT_FOLDER"):
        monkeypatch.setenv(name, "x")
    assert load(tmp_path).app == "app"


def test_an_argument_replaces_one_value_not_its_section(tmp_path: Path) -> None:
    settings = load(tmp_path, "[gateway]\nport = 1\nhost = '0.0.0.0'", gateway={"port": 2})
    assert (settings.gateway.port, settings.gateway.host) == (2, "0.0.0.0")


def test_callouts_are_read_and_a_list_that_names_no_host_is_refused(tmp_path: Path) -> None:
    lists = 'egress = ["*.example.org"]\nprivate = ["127.0.0.1:9000", "10.0.0.0/8", "crm.internal"]'
    parts = make_callouts(load(tmp_path, f"[callouts]\n{lists}\n"))
    assert parts.attempts == 3
    assert parts.guard.egress == ("*.example.org",)
    assert parts.guard.private.allows(ip_address("127.0.0.1"), 9000, ())
    assert not parts.guard.private.allows(ip_address("127.0.0.1"), 9001, ())
    assert make_callouts(load(tmp_path)).guard.egress is None
    for wrong in ('egress = ["https://api.example.com"]', 'private = ["10.0.0.0/8 "]', 'private = ["127.0.0.1:0"]'):
        with pytest.raises(ConfigError, match="callouts"):
            make_callouts(load(tmp_path, f"[callouts]\n{wrong}\n"))
