"""Forgetting a person: what is kept of them is blanked everywhere, and stays so when an older copy is restored."""

from circuit_script.erasure.again import Remembered, forget_again, hashes_match, remembered
from circuit_script.erasure.find import Person, owners
from circuit_script.erasure.forget import Forgotten, forget

__all__ = [
    "Forgotten",
    "Person",
    "Remembered",
    "forget",
    "forget_again",
    "hashes_match",
    "owners",
    "remembered",
]
