"""`[judgment]` in circuit.toml: presets, thresholds by place, rules, and the policy that they make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from circuit_script.config import load_settings
from circuit_script.errors import ConfigError
from circuit_script.judgment import OFF, PRESETS, Allowed, Policy, Thresholds, policy_of
from circuit_script.wiring.judgment import judges_records

DIGEST = "0123456789abcdef0123456789abcdef"
EVERYTHING = f"""
[judgment]
preset = "strict"
quarantine = 0.8

[judgment.fields."Contact.notes"]
preset = "monitor"

[judgment.fields.subject]
block = 0.6

[judgment.sources.twilio]
preset = "off"

[judgment.tenants.acme]
preset = "balanced"
block = 0.99

[tenants.acme]

[[judgment.allow]]
reason = "our own template"
digest = "{DIGEST}"
field = "Contact.notes"

[[judgment.allow]]
reason = "they sell prompts"
pattern = "override.ignore-earlier"
tenant = "acme"
"""


def policy(folder: Path, toml: str) -> Policy | None:
    (folder / "circuit.toml").write_text(toml)
    return policy_of(load_settings(folder).judgment)


def test_who_says_nothing_is_judged_by_the_balanced_preset(tmp_path: Path) -> None:
    assert policy(tmp_path, "") == Policy(PRESETS["balanced"])


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    made = policy(tmp_path, EVERYTHING)

    assert made is not None
    assert made.usual == Thresholds(0.65, 0.8, 0.99)
    assert made.thresholds(None, "twilio", "Contact.city") == OFF
    assert made.thresholds(None, "twilio", "Contact.notes") == PRESETS["monitor"]
    assert made.thresholds(None, None, "Message.subject") == Thresholds(0.6, 0.6, 0.6)
    assert made.thresholds("acme", "twilio", "Contact.notes") == Thresholds(0.88, 0.99, 0.99)
    assert made.allow == (
        Allowed("our own template", digest=DIGEST, field="Contact.notes"),
        Allowed("they sell prompts", pattern="override.ignore-earlier", tenant="acme"),
    )


@pytest.mark.parametrize(
    ("toml", "judged"),
    [
        ('[judgment]\npreset = "off"', False),
        ('[judgment]\npreset = "off"\n[judgment.fields.notes]\npreset = "off"', False),
        ('[judgment]\npreset = "off"\n[judgment.tenants.default]\npreset = "strict"', True),
        ('[judgment]\npreset = "off"\n[judgment.tenants.default]\nquarantine = 0.7', True),
        ('[judgment]\npreset = "monitor"', True),
    ],
)
def test_off_is_off_unless_a_place_is_judged(tmp_path: Path, toml: str, judged: bool) -> None:
    assert (policy(tmp_path, toml) is not None) is judged


def test_where_nothing_else_is_judged_a_place_has_what_it_says(tmp_path: Path) -> None:
    made = policy(tmp_path, '[judgment]\npreset = "off"\n[judgment.tenants.default]\nquarantine = 0.7')

    assert made is not None
    assert made.usual == OFF
    assert made.thresholds("default", None, None).action(0.8) == "quarantine"
    assert made.thresholds("default", None, None).block == PRESETS["monitor"].block


@pytest.mark.parametrize(
    ("toml", "made"),
    [
        ('[judgment]\npreset = "strict"\nneutralize = 0.9', Thresholds(0.9, 0.9, 0.99)),
        ('[judgment]\npreset = "strict"\nquarantine = 0.995', Thresholds(0.65, 0.995, 0.995)),
        ("[judgment]\nneutralize = 0.995", Thresholds(0.995, 0.995)),
        ('[judgment]\npreset = "strict"\nquarantine = 0.5', Thresholds(0.5, 0.5, 0.99)),
    ],
)
def test_what_is_given_holds_and_what_is_not_makes_room(tmp_path: Path, toml: str, made: Thresholds) -> None:
    assert policy(tmp_path, toml) == Policy(made)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[judgment]\npreset = "lax"', "preset"),
        ("[judgment]\nquarantine = 1.5", "quarantine"),
        ("[judgment]\nneutralize = 0.8\nquarantine = 0.3", "must not be above quarantine"),
        ("[judgment]\nneutralize = 0.8\nblock = 0.3", "must not be above block"),
        ('[judgment]\npreset = "off"\nblock = 0.9', "judges nothing"),
        ('[judgment.tenants.acme]\nfields = { notes = "off" }', "fields"),
        ('[[judgment.allow]]\nreason = "why"', "a digest or a pattern"),
        (
            '[judgment.tenants.acmee]\npreset = "off"\n[tenants.acme]',
            "there is no tenant 'acmee'. Did you mean 'acme'?",
        ),
        (f'[[judgment.allow]]\nreason = "why"\ndigest = "{DIGEST}"\ntenant = "globex"', "there is no tenant 'globex'"),
        ("[judgment]\nblock = nan", "block"),
        (f'[[judgment.allow]]\ndigest = "{DIGEST}"', "reason"),
        ('[[judgment.allow]]\nreason = "why"\ndigest = "abc"', "digest"),
        (f'[[judgment.allow]]\nreason = "why"\ndigest = "{DIGEST}"\npattern = "leak.all"', "a digest or a pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"judgment") as refused:
        policy(tmp_path, toml)
    assert said in str(refused.value)


def test_what_a_child_needs_loads_no_level() -> None:
    code = (
        "import sys, circuit_script.judgment.untrusted, circuit_script.execution.authoring.context\n"
        "from circuit_script.judgment import Untrusted, Verdict\n"
        "print(sorted({'re2', 'numpy', 'circuit_script.judgment.protocol'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("said", "key", "judged"),
    [
        ("", "", False),
        ("", "sk-1", True),
        ("[judgment]\nrecords = true\n", "", True),
        ("[judgment]\nrecords = false\n", "sk-1", False),
        ('[judgment]\nrecords = "auto"\n', "sk-1", True),
    ],
)
def test_records_are_judged_where_the_app_can_ask_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, key: str, judged: bool
) -> None:
    for name in [each for each in os.environ if each.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    (tmp_path / "circuit.toml").write_text(said)

    assert judges_records(load_settings(tmp_path)) is judged
