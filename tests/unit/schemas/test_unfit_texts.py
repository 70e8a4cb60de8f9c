"""Records that no JSON can hold."""

from __future__ import annotations

from circuit_script.schemas.fitting import unfit
from circuit_script.schemas.objects import ContactSchema


def test_half_a_surrogate_pair_is_told_as_a_fault_of_the_record() -> None:
    assert unfit(ContactSchema, {"firstName": "\ud83d"}) == "the record has text that is no Unicode"
