"""A text in letters that only look like its own is more suspicious than the same text plainly written, never less."""

from __future__ import annotations

import pytest

from circuit_script.judgment import PRESETS, JudgmentProtocol, judge
from circuit_script.judgment.disguise import disguise
from circuit_script.judgment.intake import LONG, page_of
from circuit_script.judgment.model import model

PLAIN = "We sat in the garden behind the old house and had tea with them"
DISGUISED = {
    "homoglyphs": "Wе sаt in thе gаrdеn bеhind thе оld hоusе аnd hаd tеа with thеm",
    "digits": "W3 s4t in th3 g4rd3n b3hind th3 0ld h0us3 4nd h4d t34 with th3m",
    "wide": "Ｗｅ ｓａｔ ｉｎ ｔｈｅ ｇａｒｄｅｎ ｂｅｈｉｎｄ ｔｈｅ ｏｌｄ ｈｏｕｓｅ ａｎｄ ｈａｄ ｔｅａ",
    "apart": "W e s a t i n t h e g a r d e n b e h i n d t h e o l d h o u s e a n d h a d t e a w i t h t h e m",
}
ORDINARY = {
    "plain": PLAIN,
    "numbers": "Call me at 5pm, 3rd floor, room B12, about the H2O filter and v2.0.1 of the driver.",
    "names": "Please review pydantic_ai_agent.py and self.start_new_thread() in my-app.",
    "short messages": "c u 2nite m8, gr8 2 hear from u, will b l8r",
    "accents": "Die Größe der Tür müßte für den Schrank genügen, schöne Grüße aus Łódź",
    "cyrillic": "Привет, как дела? Счёт за март пришёл вчера, спасибо.",
    "chinese": "您好，发票已经收到（三月份），谢谢！",
    "nothing": "",
}


@pytest.mark.parametrize("name", DISGUISED)
def test_what_is_disguised_counts_as_such(name: str) -> None:
    assert disguise(page_of(DISGUISED[name])) >= 0.5


@pytest.mark.parametrize("name", ORDINARY)
def test_what_people_write_is_no_disguise(name: str) -> None:
    assert disguise(page_of(ORDINARY[name])) == 0


@pytest.mark.parametrize("name", ["digits", "wide"])
def test_a_disguise_raises_the_score_and_does_not_decide_alone(name: str) -> None:
    """The others are findings besides, or say something by their form."""
    plain, dressed = judge(PLAIN).score, judge(DISGUISED[name]).score
    assert plain < dressed < PRESETS["balanced"].neutralize


def test_one_strange_letter_in_a_long_text_is_hardly_a_disguise() -> None:
    text = "The delivery came on Tuesday and both boxes were fine. " * 20
    assert 0 < disguise(page_of(text + "Hellо")) < 0.1


def test_a_disguise_in_a_long_text_counts_where_it_stands() -> None:
    """Harmless text around it dilutes it no further than to a window."""
    before = "The delivery came on Tuesday and both boxes were fine. " * (2 * LONG // 55)
    with_it, without = before + DISGUISED["homoglyphs"], before + PLAIN
    assert judge(with_it).score > judge(without).score


def test_scores_of_many_texts_count_it_as_judge_does() -> None:
    texts = [*DISGUISED.values(), *ORDINARY.values()]
    assert JudgmentProtocol().scores(texts) == [judge(each).score for each in texts]


def test_a_wild_disguise_counts_at_most_as_one() -> None:
    assert model().fused(0.0, 0.0, 1e9) == model().fused(0.0, 0.0, 1.0) > model().fused(0.0, 0.0, -5.0)
