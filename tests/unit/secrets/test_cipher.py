from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.secrets.cipher import BYTES, Cipher, SealBroken, key_id, keys_of, new_key

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


@given(
    st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
)
def test_what_is_sealed_opens_again_as_what_it_was_sealed(text: str, of: str) -> None:
    assert Cipher([OLD]).open(Cipher([OLD]).seal(text, of), of) == text


def test_it_opens_nowhere_else() -> None:
    sealed = Cipher([OLD]).seal("token", "acme/crm/refresh")
    with pytest.raises(SealBroken, match="sealed for another place"):
        Cipher([OLD]).open(sealed, "globex/crm/refresh")


def test_no_byte_can_be_changed() -> None:
    cipher = Cipher([OLD])
    sealed = cipher.seal("token", "acme/x")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            cipher.open(bytes(changed), "acme/x")
    for size in range(len(sealed)):
        with pytest.raises(SealBroken):
            cipher.open(sealed[:size], "acme/x")


def test_the_first_key_seals_and_each_opens() -> None:
    old = Cipher([OLD]).seal("a", "x")
    both = Cipher([NEW, OLD])
    assert both.open(old, "x") == "a"
    assert not both.is_current(old)
    again = both.seal("a", "x")
    assert both.is_current(again)
    assert Cipher([NEW]).open(again, "x") == "a"
    with pytest.raises(SealBroken, match=f"the key {key_id(NEW).hex()}") as refused:
        Cipher([OLD]).open(again, "x")
    assert "CIRCUIT_SECRETS_KEY=new,old" in refused.value.cure


def test_the_same_text_is_never_sealed_alike() -> None:
    cipher = Cipher([OLD])
    assert len({cipher.seal("token", "x") for _ in range(200)}) == 200


def test_no_key_and_no_text_is_shown() -> None:
    cipher = Cipher([OLD, NEW])
    shown = repr(cipher)
    assert OLD.hex() not in shown
    assert key_id(OLD).hex() in shown
    assert b"token" not in cipher.seal("token", "x")


def test_a_cipher_without_a_key_or_with_a_short_one_is_not_made() -> None:
    with pytest.raises(ValueError, match="a key at least"):
        Cipher([])
    with pytest.raises(ValueError, match="32 bytes"):
        Cipher([b"short"])


def test_keys_are_read_from_lines_and_lists_in_both_alphabets() -> None:
    one, other = new_key(), new_key()
    assert keys_of(f"{one},{other}") == keys_of(f"# words\n{one}\n\n {other} \n")
    assert keys_of(one.replace("+", "-").replace("/", "_").rstrip("=")) == keys_of(one)
    assert [len(each) for each in keys_of(f"{one}\n{other}")] == [BYTES, BYTES]
    assert keys_of(" \n") == []


@pytest.mark.parametrize("wrong", ["not base64 at all!", "c2hvcnQ=", "é" * 44])
def test_what_is_no_key_is_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(ValueError, match="key 1") as refused:
        keys_of(wrong)
    assert wrong not in str(refused.value)
