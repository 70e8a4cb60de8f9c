"""Dead letters and effects in doubt: what nobody tries again by itself, and what people do about it."""

from circuit_script.events.letters.close import CHUNK, Fate, discard, retry
from circuit_script.events.letters.doubt import Decision, Doubt, Known, doubts, find_doubt, known_of, settle_doubt
from circuit_script.events.letters.edit import Edited, must_have_place, parsed, send_edited
from circuit_script.events.letters.letter import Cause, Letter, Wanted, causes, chosen, find_letter, letters
from circuit_script.events.letters.payload import Payload, payload_of
from circuit_script.events.letters.story import Answer, Attempt, Line, Story, story_of

__all__ = [
    "CHUNK",
    "Answer",
    "Attempt",
    "Cause",
    "Decision",
    "Doubt",
    "Edited",
    "Fate",
    "Known",
    "Letter",
    "Line",
    "Payload",
    "Story",
    "Wanted",
    "causes",
    "chosen",
    "discard",
    "doubts",
    "find_doubt",
    "find_letter",
    "known_of",
    "letters",
    "must_have_place",
    "parsed",
    "payload_of",
    "retry",
    "send_edited",
    "settle_doubt",
    "story_of",
]
