"""Beside what users have now: Flask, gunicorn, Celery and Redis on the same job."""

from __future__ import annotations

from benchmarks import app, contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure


async def measure(bench: Bench) -> list[Figure]:
    if contestants.redis_server() is None:
        note = "redis-server is not installed here: apt-get install redis-server"
        return [Figure("ratio_flask_celery", None, "ratio", "", note)]
    size = bench.size(6000, 1000)
    key = bench.vendor.public_key
    async with (
        contestants.flask_and_celery(bench.place("peer"), await bench.database(), key) as peer,
        contestants.ours(
            bench.place("ours"), await bench.database(), key, triggers=app.SCORING.format(batch=200)
        ) as ours,
    ):
        rates = {}
        for name, contestant in (("Flask and Celery", peer), ("ours", ours)):
            bench.says(f"whole road, {name}")
            await bench.road(contestant, bench.contacts(300))
            rates[name] = (await bench.road(contestant, bench.contacts(size))).rate
    ratio = rates["ours"] / rates["Flask and Celery"]
    note = f"Flask and Celery: {rates['Flask and Celery']:,.0f} events/s scored and stored, {size} events"
    return [Figure("ratio_flask_celery", round(ratio, 2), "ratio", "", note)]
