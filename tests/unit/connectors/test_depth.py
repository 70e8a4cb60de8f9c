"""The depth that a delivery tells is believed only where its signature says so."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.connectors import depth
from circuit_script.connectors.webhook import signature

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
KEY = b"s" * 24
SIGNED = depth.header(SECRET, "id-1", 1_700_000_000, 3)


@given(st.integers(0, depth.DEEPEST))
def test_what_we_sign_we_believe(deep: int) -> None:
    said = depth.header(SECRET, "id-1", 1_700_000_000, deep)

    assert len(said) <= depth.LONGEST
    assert depth.read(said, [b"an older key", KEY], "id-1", "1700000000") == deep


def test_what_is_deeper_than_can_be_told_is_told_as_deep_as_can_be() -> None:
    assert depth.read(depth.header(SECRET, "i", 1, 10**9), [KEY], "i", "1") == depth.DEEPEST


@pytest.mark.parametrize(
    "claim",
    [
        None, "", "3", "15", "-1", "+3", "3 v1", "3 v1,", "3 v1,AAAA", "3 v1,ä", "3 v1,\ud83d", "٣ v1,AAAA",
        "nonsense", "9" * 79, "9" * 5000, "16 v1," + "A" * 44, SIGNED.replace("3", "4", 1),
        " " + SIGNED, SIGNED + " ",
    ],
)  # fmt: skip
def test_a_claim_that_is_not_signed_is_none(claim: str | None) -> None:
    assert depth.read(claim, [KEY], "id-1", "1700000000") == 0


@pytest.mark.parametrize(
    ("keys", "identifier", "stamp"),
    [
        ([], "id-1", "1700000000"),
        ([b"x" * 24], "id-1", "1700000000"),
        ([KEY], "id-2", "1700000000"),
        ([KEY], "id-1", "1"),
    ],
)
def test_a_claim_counts_for_its_own_delivery_alone(keys: list[bytes], identifier: str, stamp: str) -> None:
    assert depth.read(SIGNED, keys, identifier, stamp) == 0


def test_without_a_secret_it_is_told_and_not_signed() -> None:
    assert depth.header("", "id-1", 1, 3) == "3"


def test_the_signature_of_a_depth_signs_no_delivery() -> None:
    """Else who sees one could send the body that the signed text ends with."""
    mac = SIGNED.partition(" v1,")[2]

    assert mac not in signature(SECRET, "id-1", 1_700_000_000, b"3")["webhook-signature"]
