"""The models of one worker: who serves which, what a call may cost at worst, and which budgets it counts in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from circuit_script.errors import RequestRefused
from circuit_script.governor.budget import Ceilings, Money
from circuit_script.governor.money import MOST, nanos
from circuit_script.llm.prices import Price, Prices
from circuit_script.llm.provider import Provider
from circuit_script.llm.request import DEARER, Asked
from circuit_script.llm.settling import Settling

SHORTEST = 256  # tokens to which an answer may be cut that nobody bounded, so that it fits into what is left


@dataclass(frozen=True, slots=True)
class Room:
    """What an execution may still use: tokens, and nano-dollars."""

    tokens: int
    nanos: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A call as it would be made. ``max_tokens`` are those of each choice's answer."""

    provider: Provider
    model: str
    price: Price
    asked: Asked
    max_tokens: int
    shortest: int
    wanted: int  # max_tokens before they were cut

    @property
    def tokens(self) -> int:
        """Tokens of input and output, at most."""
        return self.asked.tokens_in + self.asked.choices * self.max_tokens

    @property
    def worst(self) -> int:
        """What it costs at most, in nano-dollars."""
        return min(MOST, self.price.worst(self.asked.tokens_in, self.asked.choices * self.max_tokens))

    @property
    def shortened(self) -> str:
        """What to say of an answer that did not come to its end, if it is we who cut it; else empty."""
        if self.max_tokens >= self.wanted:
            return ""
        return f"no more than {self.max_tokens} tokens were left for the answer, and it is longer"

    @property
    def body(self) -> bytes:
        return self.provider.body(self.asked.body, self.model, self.max_tokens, self.asked.stream)

    def within(self, room: Room) -> Plan:
        """With an answer that is cut to this room, if its author has not bounded it; never below ``shortest``."""
        if self.asked.max_tokens is not None:
            return self
        affordable = self.price.affordable(room.nanos, self.asked.tokens_in)
        most = min(room.tokens - self.asked.tokens_in, affordable) // self.asked.choices
        return replace(self, max_tokens=min(self.max_tokens, max(self.shortest, most)))


@dataclass(frozen=True, slots=True)
class TenantMoney:
    """What a tenant may spend, in nano-dollars, and what happens then; None: what [budget] says."""

    day: int | None = None
    month: int | None = None
    at_ceiling: str | None = None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """``day`` is the budget of all tenants and ``tenant`` says that of each, in nano-dollars; ``max_tokens`` bounds an
    answer that its author does not bound."""

    model: str
    cheaper: str
    max_tokens: int
    day: int | None
    at_ceiling: str
    tenant: Callable[[str], TenantMoney]


class Models:
    """What the brokers of one worker share of models."""

    def __init__(self, options: ModelOptions, *, providers: Sequence[Provider], prices: Prices, money: Money) -> None:
        self.money = money
        self.settling = Settling(money)
        self._options = options
        self._providers = providers
        self._prices = prices

    def follow(self, tenant: Callable[[str], TenantMoney]) -> None:
        """Hold tenants to other budgets from the next call on."""
        self._options = replace(self._options, tenant=tenant)

    @property
    def default(self) -> str:
        """The model of a call that names none."""
        return self._options.model

    @property
    def cheaper(self) -> str:
        """The model that answers at the ceiling, where that is the policy; empty: none."""
        return self._options.cheaper

    def plan(self, asked: Asked, model: str) -> Plan:
        """How this model would be called. Raises RequestRefused when nobody serves it, or nobody knows its price."""
        provider, name = self._serving(model)
        if DEARER.search(name):
            raise RequestRefused(
                f"model {name!r} is charged for more than tokens of text.", cure="Use another.", page="model-request"
            )
        if provider.missing:
            raise RequestRefused(
                f"there is no key for {provider.name}: {provider.missing} is not set.",
                cure=f"Set {provider.missing} in the environment of circuit-script, and start it again.",
                page="llm-provider",
            )
        if provider.fault:
            raise RequestRefused(
                f"the key of {provider.name} cannot be sent: {provider.fault}.",
                cure="Copy the key once more, and start circuit-script again.",
                page="llm-provider",
            )
        price = self._prices.of(provider.name, provider.url, name)
        most = asked.max_tokens or self._options.max_tokens
        return Plan(provider, name, price, asked, most, min(SHORTEST, most), most)

    def ceilings(self, tenant: str, handler: float | None) -> Ceilings:
        """The budgets that a call counts in; ``handler`` is its handler's, in dollars a day."""
        money = self._options.tenant(tenant)
        return Ceilings(None if handler is None else nanos(handler), money.day, money.month, self._options.day)

    def at_ceiling(self, tenant: str, handler: str | None) -> str:
        """What happens when a budget is used up: the handler's word, else its tenant's tier's, else [budget]'s."""
        return handler or self._options.tenant(tenant).at_ceiling or self._options.at_ceiling

    def _serving(self, model: str) -> tuple[Provider, str]:
        """Who serves a model; "openai:gpt-4o-mini" says whom its author wants."""
        said, colon, name = model.partition(":")
        for provider in self._providers:
            if colon and provider.name == said:
                return provider, name
        for provider in self._providers:
            if provider.serves(model):
                return provider, model
        known = "; ".join(f"{each.name}: {', '.join(each.models) or 'none'}" for each in self._providers)
        raise RequestRefused(
            f"no provider serves model {model!r}.",
            cure=f"Add it to models of one in circuit.toml, [llm.providers]. There are {known or 'none'}.",
            page="llm-provider",
        )
