from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from circuit_script.cli.dev.keys import role_environment
from circuit_script.cli.samples import LOCATION, Sample, make_sample
from circuit_script.config import Settings, TenantSettings, load_settings
from circuit_script.errors import StartError
from circuit_script.events.sources import Parsed, Request, open_sources

Make = Callable[..., Sample]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of an app that runs by `dev`."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for name, value in role_environment(load_settings(tmp_path)).items():
        monkeypatch.setenv(name, value)
    return load_settings(tmp_path)


def arrived(settings: Settings, sample: Sample) -> tuple[Parsed, dict[str, Any]]:
    """What the gateway makes of it: verified by the source that it is for."""
    name, _, account = sample.path.removeprefix("/webhooks/").partition("/")
    source = open_sources(settings.sources)[name]
    headers = {key.lower(): value for key, value in sample.signed.headers.items()}
    request = Request("POST", sample.path, b"", headers, sample.signed.body, time.time(), account or None)
    (record,) = source.records(sample.signed.body)
    return source.parse(request, source.verify(request)), record


@pytest.mark.parametrize("source", ["gohighlevel", "standard"])
@pytest.mark.parametrize(
    "event",
    [
        "Contact.afterInsert",
        "Contact.afterUpdate",
        "Contact.afterDelete",
        "Message.afterInsert",
        "Appointment.afterInsert",
        "Appointment.afterUpdate",
        "Opportunity.afterUpdate",
        "Invoice.afterInsert",
    ],
)
def test_a_sample_is_accepted_as_the_event_that_was_asked_for(settings: Settings, source: str, event: str) -> None:
    sample = make_sample(settings, source, event, {})
    parsed, record = arrived(settings, sample)
    (draft,) = parsed.events
    assert f"{draft.object}.{draft.event}" == event
    assert sample.record == draft.record == record["id"]
    assert parsed.vendor_id, "so that sending it twice is no duplicate"


@pytest.mark.parametrize("source", ["gohighlevel", "standard"])
def test_given_fields_go_over_those_of_the_sample(settings: Settings, source: str) -> None:
    sample = make_sample(settings, source, "Contact.afterInsert", {"id": "c1", "city": "Waco"})
    _, record = arrived(settings, sample)
    assert (sample.record, record["id"], record["city"]) == ("c1", "c1", "Waco")
    assert "@" in record["email"], "the rest is a whole contact"
    _, nested = arrived(
        settings, make_sample(settings, source, "Appointment.afterInsert", {"id": "a1", "title": "Tour"})
    )
    assert (nested["id"], nested["title"]) == ("a1", "Tour")


def test_a_whole_payload_of_the_vendor_is_sent_as_it_is(settings: Settings) -> None:
    payload = {"type": "NoteCreate", "locationId": "loc", "id": "n1", "body": "called"}
    parsed, record = arrived(settings, make_sample(settings, "gohighlevel", "Contact.afterInsert", payload))
    assert (parsed.account, parsed.events[0].object, record["body"]) == ("loc", "Note", "called")


def test_the_account_is_the_given_one_or_one_that_a_tenant_has(settings: Settings) -> None:
    plain = make_sample(settings, "gohighlevel", "Contact.afterInsert", {})
    assert arrived(settings, plain)[0].account == LOCATION
    given = make_sample(settings, "gohighlevel", "Contact.afterInsert", {}, "mine")
    assert arrived(settings, given)[0].account == "mine"
    mapped = settings.model_copy(update={"tenants": {"ada": TenantSettings(gohighlevel=("hers",))}})
    assert arrived(mapped, make_sample(mapped, "gohighlevel", "Contact.afterInsert", {}))[0].account == "hers"


def test_a_configured_secret_signs_for_its_account(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_SOURCES__STANDARD__SECRETS", '{"acme": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}')
    configured = load_settings(settings.folder)
    sample = make_sample(configured, "standard", "Contact.afterInsert", {}, "acme")
    assert sample.path == "/webhooks/standard/acme"
    assert arrived(configured, sample)[0].account == "acme"
    with pytest.raises(StartError, match="account 'other' of Standard Webhooks has no secret"):
        make_sample(configured, "standard", "Contact.afterInsert", {}, "other")


@pytest.mark.parametrize(
    ("source", "event", "words"),
    [
        ("standard", "Contact.afterCreate", "Did you mean Contact.after"),
        ("standard", "afterInsert", r"Did you mean Contact\.afterInsert"),
        ("gohighlevel", "Contact.afterUndelete", "GoHighLevel has no webhook"),
    ],
)
def test_an_event_that_there_is_not_is_a_wrong_command_line(
    settings: Settings, source: str, event: str, words: str
) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        make_sample(settings, source, event, {})


def test_without_the_keys_of_dev_it_says_how_to_get_them(tmp_path: Path) -> None:
    for source in ("gohighlevel", "standard"):
        with pytest.raises(StartError, match=r"no key to sign with.*circuit-script dev") as refused:
            make_sample(load_settings(tmp_path), source, "Contact.afterInsert", {})
        assert refused.value.page == "signing-key"


def test_a_key_that_is_none_is_refused(settings: Settings) -> None:
    (settings.state / "dev" / "gohighlevel.key").write_text("not a key")
    with pytest.raises(StartError, match="is not an Ed25519 key"):
        make_sample(settings, "gohighlevel", "Contact.afterInsert", {})
