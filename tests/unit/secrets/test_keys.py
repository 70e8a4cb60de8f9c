from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit_script.config import load_settings
from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.cipher import SealBroken, new_key
from circuit_script.secrets.keys import Keys, cipher_of
from circuit_script.secrets.rotation import begin_in_file, end_in_file


def test_the_embedded_databases_key_is_made_for_its_owner_alone_when_something_is_sealed(tmp_path: Path) -> None:
    keys = Keys(load_settings(tmp_path))
    path = tmp_path / ".circuit" / "secrets.key"
    with pytest.raises(SecretsUnavailable, match="not there any more"):
        keys.open(b"\x01" + bytes(60), "x")
    assert not path.exists()
    sealed = keys.seal("token", "x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keys(load_settings(tmp_path)).open(sealed, "x") == "token"
    assert [each.name for each in path.parent.iterdir()] == ["secrets.key"]


def test_a_database_of_ones_own_needs_a_key_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://there/db")
    keys = Keys(load_settings(tmp_path))
    with pytest.raises(SecretsUnavailable, match="There is no key") as refused:
        keys.seal("token", "x")
    assert "CIRCUIT_SECRETS_KEY" in refused.value.cure
    assert not (tmp_path / ".circuit").exists()
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", new_key())
    assert keys.open(keys.seal("token", "x"), "x") == "token"


def test_a_file_that_others_can_read_is_refused_unless_the_owner_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(tmp_path)
    Keys(settings).seal("token", "x")
    path = tmp_path / ".circuit" / "secrets.key"
    path.chmod(0o644)
    with pytest.raises(SecretsUnavailable, match="chmod 600"):
        cipher_of(settings)
    monkeypatch.setenv("CIRCUIT_SECRETS__KEY_FILE", str(path))
    cipher_of(load_settings(tmp_path))


@pytest.mark.parametrize(("said", "words"), [("nonsense", "32 bytes"), (",", "is empty"), ("c2hvcnQ=", "32 bytes")])
def test_what_is_no_key_is_refused_by_name(
    said: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", said)
    with pytest.raises(SecretsUnavailable, match=words) as refused:
        cipher_of(load_settings(tmp_path))
    assert "CIRCUIT_SECRETS_KEY" in str(refused.value)


def test_a_rotation_of_the_file_keeps_what_is_used_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    keys = Keys(load_settings(tmp_path))
    worker = Keys(load_settings(tmp_path))
    first = worker.seal("token", "x")
    one = keys.cipher()
    two = begin_in_file(keys, {one.key})
    assert two.key != one.key
    assert worker.cipher().key == two.key, "who is at work seals with the new key"
    assert worker.open(first, "x") == "token"
    assert begin_in_file(Keys(load_settings(tmp_path)), {one.key}).key == two.key, "it was interrupted"
    end_in_file(keys)
    three = begin_in_file(keys, {two.key})
    assert three.key not in (one.key, two.key)
    assert three.open(two.seal("a", "y"), "y") == "a"
    with pytest.raises(SealBroken):
        three.open(first, "x")  # no row has it any more
    assert os.stat(tmp_path / ".circuit" / "secrets.key").st_mode & 0o777 == 0o600
