"""What tokens cost: what circuit.toml says, else genai-prices' table, which lies within its package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from circuit_script.clock import now
from circuit_script.errors import RequestRefused
from circuit_script.governor.money import nanos_up

MILLION = 1_000_000
# Of what a request with text and images may be charged for. Sound and video are refused, so theirs count for nothing.
_INPUT = ("input_mtok", "cache_write_mtok", "cache_write_5m_mtok", "cache_write_1h_mtok", "input_text_mtok",
          "input_image_mtok", "input_tool_mtok", "cache_read_mtok")  # fmt: skip
_OUTPUT = ("output_mtok", "output_text_mtok", "output_reasoning_mtok")


@dataclass(frozen=True, slots=True)
class Rate:
    """Dollars per million tokens. From more than ``start`` input tokens on, another rate holds for all of them."""

    base: Decimal
    tiers: Sequence[tuple[int, Decimal]] = ()  # rising

    def at(self, tokens_in: int) -> Decimal:
        """The rate of a request with so many input tokens."""
        return next((rate for start, rate in reversed(self.tiers) if tokens_in > start), self.base)

    @property
    def worst(self) -> Decimal:
        return max(self.base, *(rate for _, rate in self.tiers)) if self.tiers else self.base


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs. ``worst_in`` and ``worst_out`` are the dearest that a million tokens can be."""

    input: Rate
    output: Rate
    cached: Rate
    cache_write: Rate
    worst_in: Decimal
    worst_out: Decimal
    request: Decimal = Decimal(0)

    @classmethod
    def plain(cls, input: Decimal, output: Decimal, request: Decimal = Decimal(0)) -> Price:
        """One that knows no discount."""
        rate = Rate(input)
        return cls(rate, Rate(output), rate, rate, input, output, request)

    def worst(self, tokens_in: int, tokens_out: int) -> int:
        """Nano-dollars that so many tokens cost at most."""
        return nanos_up((tokens_in * self.worst_in + tokens_out * self.worst_out) / MILLION + self.request)

    def cost(self, tokens_in: int, tokens_out: int, cached: int = 0, written: int = 0) -> int:
        """Nano-dollars of a call; of ``tokens_in`` so many were read from the provider's cache, and written into it."""
        cached = min(cached, tokens_in)
        written = min(written, tokens_in - cached)
        whole = (
            (tokens_in - cached - written) * self.input.at(tokens_in)
            + cached * self.cached.at(tokens_in)
            + written * self.cache_write.at(tokens_in)
            + tokens_out * self.output.at(tokens_in)
        )
        return nanos_up(whole / MILLION + self.request)

    def affordable(self, amount: int, tokens_in: int) -> int:
        """Output tokens that fit into so many nano-dollars beside the input; below zero when the input does not."""
        left = amount - self.worst(tokens_in, 0)
        if not self.worst_out:
            return MILLION if left >= 0 else -1
        return int(left * MILLION // nanos_up(self.worst_out)) if left >= 0 else -1


class Prices:
    """``own`` are those of circuit.toml, by the model's name, or "provider:model", which comes first."""

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own = own

    def of(self, provider: str, url: str, model: str) -> Price:
        """The price of a model. Raises RequestRefused when nobody knows it: it could cost anything."""
        if (own := self._own.get(f"{provider}:{model}", self._own.get(model))) is not None:
            return own
        found, cure = _listed(provider, url, model)
        if found is None:
            own_price = f'or say it in circuit.toml: [llm.prices."{model}"] with input and output'
            raise RequestRefused(
                f"the price of model {model!r} of {provider} is not known.",
                cure=f"{cure} {own_price} in US dollars per million tokens.",
                page="unknown-price",
            )
        return found


def _listed(provider: str, url: str, model: str) -> tuple[Price | None, str]:
    """The price in genai-prices' table, and what else to try when there is none."""
    try:
        from genai_prices import data_snapshot
    except ImportError:
        return None, "Install the list of prices, pip install 'circuit-script[llm]',"
    table = data_snapshot.get_snapshot()
    for name, address in ((provider, None), (None, url)):
        try:
            _, info = table.find_provider_model(model, None, name, address)
        except LookupError:
            continue
        prices = info.get_prices(now())
        price = _price_of({key: value for key, value in vars(prices).items() if value is not None})
        if price is not None:
            return price, ""
    return None, "Check the model's name,"


def _price_of(listed: Mapping[str, Any]) -> Price | None:
    if "input_mtok" not in listed or "output_mtok" not in listed:
        return None
    rates = {key: _rate(value) for key, value in listed.items() if key in (*_INPUT, *_OUTPUT)}
    plain = rates["input_mtok"]
    return Price(
        input=plain,
        output=rates["output_mtok"],
        cached=rates.get("cache_read_mtok", plain),
        cache_write=rates.get("cache_write_mtok", plain),
        worst_in=max(rates[key].worst for key in _INPUT if key in rates),
        worst_out=max(rates[key].worst for key in _OUTPUT if key in rates),
        request=Decimal(listed.get("requests_kcount", 0)) / 1000,
    )


def _rate(value: Any) -> Rate:
    if isinstance(value, Decimal):
        return Rate(value)
    return Rate(value.base, tuple(sorted((tier.start, tier.price) for tier in value.tiers)))
