"""A hundred model calls at once against a dollar, of which each would cost two cents."""

from __future__ import annotations

import os

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from circuit_script.config import load_settings
from circuit_script.db.migrate import migrate
from circuit_script.wiring.trial import Trial
from tests.openai_provider import IN, OUT, Do, providing

BUDGET = 1_000_000_000  # nano-dollars
CALLS = 100
TOKENS = 2_000  # of each answer
KEY = "BENCH_PROVIDER_KEY"
TRIGGERS = """
import asyncio

from circuit_script import llm, log, trigger


MANY = {{"llm_calls": 1000, "llm_tokens": 10_000_000, "llm_cost": 100, "memory": 2**30}}


@trigger("Contact", ["afterInsert"], limits=MANY)
async def spend(context):
    asked = [llm.complete(f"Call {{number}}.", max_tokens={tokens}) for number in range({calls})]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    log.info("answered", answers=sum(isinstance(each, str) for each in answers))
"""
CONFIG = """
[budget]
tenant_day = 1.0

[llm]
model = "measured"

[llm.providers.measured]
url = "{url}"
key_env = "{key}"
models = ["measured"]

[llm.prices.measured]
input = {input}
output = {output}
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("a hundred model calls against a dollar")
    folder = bench.place("money")
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("")
    (folder / "app" / "triggers.py").write_text(TRIGGERS.format(tokens=TOKENS, calls=CALLS))
    database = await bench.database()
    await migrate(database)
    async with providing(lambda asked: Do(tokens_out=TOKENS)) as provider:
        prices = {"input": IN / 1000, "output": OUT / 1000}  # dollars per million tokens
        (folder / "circuit.toml").write_text(CONFIG.format(url=provider.url, key=KEY, **prices))
        os.environ[KEY] = "of the benchmark"
        try:
            async with Trial(load_settings(folder), database, keep_logs=False) as trial:
                result = await trial.run("spend", {"id": "1"})
        finally:
            del os.environ[KEY]
    if result.status != "succeeded" or not provider.asked:
        raise RuntimeError(f"nothing was spent: {result}")
    note = f"{CALLS} calls at once, {len(provider.asked)} were made; billed ${provider.billed / BUDGET:.4f} of $1"
    return [Figure("overspent_usd", max(0, provider.billed - BUDGET) / BUDGET, "$", "= 0", note)]
