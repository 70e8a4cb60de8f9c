"""What a handler's records hold after the verdicts: texts that are data only are `Untrusted`."""

from __future__ import annotations

from array import array

from circuit_script.execution.authoring.judged import mark, verdicts_of
from circuit_script.execution.authoring.records import Records
from circuit_script.judgment import Untrusted

SAID = (0.9, "neutralize", "standard", "Contact", [["intake", 1.0, 0, 0, "deal", "It is nested.", "intake.depth"]])


def marked(record: dict[str, object], *places: str) -> dict[str, object]:
    records = Records([record], memoryview(array("q", [0])))
    mark(records, "Contact", {0: verdicts_of(dict.fromkeys(places, SAID))})
    return records.at(0)


def test_only_what_a_verdict_names_is_marked() -> None:
    found = marked({"id": "c1", "notes": "x", "deal": {"title": "y", "items": ["z", 1]}}, "deal.items[0]")
    assert not isinstance(found["notes"], Untrusted)
    deal = found["deal"]
    assert isinstance(deal, dict)
    assert (type(deal["title"]), type(deal["items"][0])) == (str, Untrusted)


def test_where_a_record_was_too_much_to_be_read_all_of_its_texts_are_marked() -> None:
    found = marked({"id": "c1", "notes": "x", "n": 1, "deal": {"title": ["y"]}}, "")
    deal = found["deal"]
    assert isinstance(deal, dict)
    texts = [found["notes"], deal["title"][0]]
    assert [type(each) for each in texts] == [Untrusted, Untrusted]
    assert isinstance(texts[1], Untrusted)
    assert (texts[1].origin, found["n"]) == ("Contact.deal.title[0]", 1)
