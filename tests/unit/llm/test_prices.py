from __future__ import annotations

from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.errors import RequestRefused
from circuit_script.governor.money import NANO, dollars, nanos, nanos_up
from circuit_script.llm.prices import Price, Prices, Rate

OPENAI = "https://api.openai.com/v1"
LISTED = Prices({})
MODELS = ("gpt-4o-mini", "gpt-4.1-nano", "gpt-4o", "o3", "gpt-5", "gpt-5.6-luna")  # the last has tiers and cache writes

tokens = st.integers(0, 2_000_000)


@given(st.sampled_from(MODELS), tokens, st.integers(0, 100_000), st.integers(0, 100))
def test_costs_are_those_of_the_list(model: str, read: int, made: int, share: int) -> None:
    cached = read * share // 100
    cost = LISTED.of("openai", OPENAI, model).cost(read, made, cached)
    usage = Usage(input_tokens=read, output_tokens=made, cache_read_tokens=cached)
    listed = calc_price(usage, model, provider_id="openai").total_price
    assert abs(cost - listed * NANO) < 1


@given(st.sampled_from(MODELS), tokens, tokens, tokens, tokens, tokens, tokens)
def test_no_call_costs_more_than_its_worst_case(
    model: str, read: int, made: int, more_in: int, more_out: int, cached: int, written: int
) -> None:
    most_in, most_out = read + more_in, made + more_out
    price = LISTED.of("openai", OPENAI, model)
    assert price.cost(read, made, cached, written) <= price.worst(most_in, most_out)


@given(st.sampled_from(MODELS), tokens, st.integers(0, 50 * NANO))
def test_what_is_affordable_fits(model: str, read: int, amount: int) -> None:
    price = LISTED.of("openai", OPENAI, model)
    made = price.affordable(amount, read)
    if made < 0:
        assert price.worst(read, 0) > amount
    else:
        assert price.worst(read, made) <= amount
        assert price.worst(read, made + 2) > amount


def test_a_price_of_ones_own_comes_first() -> None:
    own = Price.plain(Decimal("0.5"), Decimal(2))
    prices = Prices({"gpt-4o-mini": own, "mine": own})
    assert prices.of("openai", OPENAI, "gpt-4o-mini") is own
    assert prices.of("local", "http://127.0.0.1:8000/v1", "mine").cost(1_000_000, 1_000_000) == 2.5 * NANO


def test_a_provider_is_known_by_its_address() -> None:
    assert LISTED.of("fast", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile").worst_out > 0


@pytest.mark.parametrize("url", [OPENAI, "http://127.0.0.1:8000/v1"])
def test_a_price_that_nobody_knows_is_refused_with_a_cure(url: str) -> None:
    with pytest.raises(RequestRefused, match=r'\[llm.prices."my-model"\] with input and output') as refused:
        LISTED.of("local", url, "my-model")
    assert refused.value.page == "unknown-price"


def test_the_tier_is_that_of_the_input() -> None:
    rate = Rate(Decimal(1), ((100, Decimal(2)), (200, Decimal(3))))
    assert [rate.at(tokens) for tokens in (0, 100, 101, 200, 201)] == [1, 1, 2, 2, 3]
    assert rate.worst == 3


def test_dollars_are_exact() -> None:
    assert nanos(0.1) + nanos(0.2) == nanos(0.3)
    assert nanos_up(Decimal("0.0000000001")) == 1
    assert [dollars(each) for each in (0, 1, 10_000_000, 1_250_000_000, 1_234_567_890_000)] == [
        "$0.00",
        "$0.000000001",
        "$0.01",
        "$1.25",
        "$1,234.56789",
    ]
