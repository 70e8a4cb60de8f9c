"""What becomes of each table when a person is forgotten: rows stay, so that counts stay true; what they say goes.

Each statement takes `ids` (records), `names` and `patterns` (these, and what else a person is known by), `deliveries`,
`events`, `own` and `shared` (executions), `jobs`, and `parts` (events of jobs that go on without the person); one of
them in chunks. It changes only what is not blank already: forgetting again counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuit_script.erasure.naming import NAMES, NAMES_IN_BYTES

WORD = "forgotten"


@dataclass(frozen=True, slots=True)
class Blank:
    """One step: ``where`` finds the rows, ``do`` blanks them; ``by`` names the list that is gone through in chunks."""

    table: str
    by: str
    where: str
    do: str

    @property
    def count(self) -> str:
        return f"SELECT count(*) FROM circuit.{self.table} WHERE {self.where}"

    @property
    def statement(self) -> str:
        head = (
            f"DELETE FROM circuit.{self.table}" if self.do == "DELETE" else f"UPDATE circuit.{self.table} SET {self.do}"
        )
        return f"{head} WHERE {self.where}"


_MINE = "tenant = %(tenant)s"
_UNSENT = "(status IN ('pending', 'in_doubt'))"
_FULL = f"{_MINE} AND (payload <> '{{}}' OR {_UNSENT})"
# What has not left does not leave.
_EMPTY = (
    f"payload = '{{}}', was = NULL, reason = '{WORD}', note = NULL, settled_at = coalesce(settled_at, now()), "
    f"status = CASE WHEN {_UNSENT} THEN 'discarded' ELSE status END"
)

# Deliveries last: until then a second try finds by them what a first one that was cut short has left.
STEPS = (
    Blank(
        "effects",
        "ids",
        f"{_FULL} AND record = ANY(%(ids)s)",
        _EMPTY,
    ),
    Blank(
        "effects",
        "own",
        f"{_FULL} AND execution = ANY(%(own)s)",
        _EMPTY,
    ),
    Blank("effects", "jobs", f"{_FULL} AND connector = 'jobs' AND id = ANY(%(jobs)s)", _EMPTY),
    # Of everybody's of a batch: what has left. What has not may be for the others.
    Blank(
        "effects",
        "shared",
        f"{_MINE} AND payload <> '{{}}' AND NOT {_UNSENT} AND record IS NULL AND execution = ANY(%(shared)s) AND "
        + NAMES.format(text="payload::text"),
        _EMPTY,
    ),
    Blank("delayed_jobs", "jobs", f"{_MINE} AND id = ANY(%(jobs)s)", "DELETE"),
    # A key that nobody holds is of no use: it goes where the id is but a part of another's, too.
    Blank(
        "job_keys",
        "ids",
        f"{_MINE} AND (job = ANY(%(jobs)s) OR key = ANY(%(ids)s) OR "
        f"({NAMES.format(text='key')} AND NOT circuit.holds_key(job_keys)))",
        "DELETE",
    ),
    Blank("journal", "events", f"{_MINE} AND event = ANY(%(events)s)", "DELETE"),
    Blank(
        "journal",
        "parts",
        f"{_MINE} AND event = ANY(%(parts)s) AND " + NAMES_IN_BYTES.format(bytes="reply"),
        "DELETE",
    ),
    Blank(
        "dead_letters",
        "ids",
        f"{_MINE} AND (record = ANY(%(ids)s) OR execution = ANY(%(own)s)) AND (reason <> '{WORD}' OR was IS NOT NULL)",
        f"reason = '{WORD}', why = NULL, was = NULL",
    ),
    Blank(
        "dead_letters",
        "shared",
        f"{_MINE} AND execution = ANY(%(shared)s) AND " + NAMES.format(text="concat_ws(' ', reason, why, was)"),
        f"reason = '{WORD}', why = NULL, was = NULL",
    ),
    Blank(
        "pauses",
        "ids",
        f"kind = 'record' AND value = ANY(%(ids)s) AND (tenant IS NULL OR {_MINE}) AND reason NOT IN ('', '{WORD}')",
        f"reason = '{WORD}'",
    ),
    # By whom or what somebody looked for events: an id, or words of the bodies that are blanked below.
    Blank(
        "replays",
        "ids",
        "(filter ->> 'tenant' IS NULL OR filter ->> 'tenant' = %(tenant)s) AND (filter ->> 'record' = ANY(%(ids)s) OR "
        f"(filter ->> 'text' <> '{WORD}' AND (" + NAMES.format(text="filter ->> 'text'") + " OR EXISTS ("
        "SELECT FROM circuit.deliveries d WHERE d.id = ANY(%(deliveries)s) "
        "AND position(convert_to(filter ->> 'text', 'UTF8') IN d.body) > 0))))",
        "filter = (SELECT jsonb_object_agg(f.key, CASE WHEN f.key IN ('record', 'text') "
        f"THEN to_jsonb('{WORD}'::text) ELSE f.value END) FROM jsonb_each(filter) AS f)",
    ),
    Blank(
        "effect_answers",
        "ids",
        f"{_MINE} AND said NOT IN ('', '{WORD}') AND effect IN (SELECT e.id FROM circuit.effects e "
        "WHERE e.tenant = %(tenant)s AND (e.record = ANY(%(ids)s) OR e.execution = ANY(%(own)s)))",
        f"said = '{WORD}'",
    ),
    Blank(
        "effect_answers",
        "shared",
        f"{_MINE} AND {NAMES.format(text='said')} AND effect IN (SELECT e.id FROM circuit.effects e "
        "WHERE e.tenant = %(tenant)s AND e.execution = ANY(%(shared)s))",
        f"said = '{WORD}'",
    ),
    Blank(
        "llm_calls",
        "ids",
        f"{_MINE} AND (record = ANY(%(ids)s) OR execution = ANY(%(own)s)) AND reason <> '{WORD}'",
        f"reason = '{WORD}'",
    ),
    Blank(
        "llm_calls",
        "shared",
        f"{_MINE} AND execution = ANY(%(shared)s) AND " + NAMES.format(text="reason"),
        f"reason = '{WORD}'",
    ),
    Blank(
        "circuit_logs",
        "ids",
        f"{_MINE} AND record = ANY(%(ids)s) AND message <> '{WORD}'",
        f"message = '{WORD}', context = NULL",
    ),
    Blank(
        "circuit_logs",
        "own",
        f"{_MINE} AND execution = ANY(%(own)s) AND message <> '{WORD}'",
        f"message = '{WORD}', context = NULL",
    ),
    Blank(
        "circuit_logs",
        "shared",
        f"{_MINE} AND execution = ANY(%(shared)s) AND record IS NULL AND "
        + NAMES.format(text="concat_ws(' ', message, context)"),
        f"message = '{WORD}', context = NULL",
    ),
    # What somebody was told: it names leads, and quotes why something failed.
    Blank(
        "alerts",
        "ids",
        f"(tenant IS NULL OR {_MINE}) AND what <> '{WORD}' AND "
        + NAMES.format(text="concat_ws(' ', key, what, next, link, hits)"),
        f"key = rule || ':{WORD}-' || id, what = '{WORD}', next = '', link = '', hits = '[]'",
    ),
    # What was learned about them from outside, as far as it is their tenant's alone.
    Blank(
        "enrichments",
        "ids",
        f"{_MINE} AND (records && %(ids)s::text[] OR {NAMES.format(text='about')})",
        "DELETE",
    ),
    # Compressed, so that nobody can look who is in them; another's may have read the person. They last for days, and
    # only while a release is compared.
    Blank("recordings", "ids", _MINE, "DELETE"),
    Blank(
        "comparisons",
        "own",
        f"{_MINE} AND execution = ANY(%(own)s) AND differences <> '[]'",
        "differences = '[]'",
    ),
    Blank("comparisons", "ids", f"{_MINE} AND " + NAMES.format(text="differences::text"), "differences = '[]'"),
    Blank("traces", "own", f"{_MINE} AND execution = ANY(%(own)s) AND spans <> '[]'", "spans = '[]'"),
    Blank(
        "traces",
        "shared",
        f"{_MINE} AND execution = ANY(%(shared)s) AND " + NAMES.format(text="spans::text"),
        "spans = '[]'",
    ),
    Blank(
        "executions",
        "own",
        f"{_MINE} AND id = ANY(%(own)s) AND (detail IS NOT NULL OR reason <> '{WORD}')",
        f"reason = CASE WHEN reason IS NOT NULL THEN '{WORD}' END, detail = NULL",
    ),
    Blank(
        "executions",
        "shared",
        f"{_MINE} AND id = ANY(%(shared)s) AND " + NAMES.format(text="concat_ws(' ', reason, detail)"),
        f"reason = '{WORD}', detail = NULL",
    ),
    Blank(
        "idempotency",
        "own",
        f"{_MINE} AND execution = ANY(%(own)s) AND octet_length(body) > 0",
        "body = '', headers = '[]'",
    ),
    Blank(
        "outcomes",
        "deliveries",
        f"{_MINE} AND delivery = ANY(%(deliveries)s) AND reason <> '{WORD}'",
        f"reason = '{WORD}'",
    ),
    Blank(
        "outcomes",
        "shared",
        f"{_MINE} AND execution = ANY(%(shared)s) AND " + NAMES.format(text="reason"),
        f"reason = '{WORD}'",
    ),
    # What an old service said of the person's deliveries, and what of it differed.
    Blank(
        "mirrored",
        "deliveries",
        "tenant IS NOT DISTINCT FROM %(tenant)s AND delivery = ANY(%(deliveries)s) "
        "AND (octet_length(old_body) > 0 OR differences <> '[]')",
        f"old_body = '', differences = '[]', why = '{WORD}', "
        "state = CASE WHEN state IN ('pending', 'taken') THEN 'silent' ELSE state END",
    ),
    Blank(
        "deliveries",
        "deliveries",
        "tenant IS NOT DISTINCT FROM %(tenant)s AND id = ANY(%(deliveries)s) AND octet_length(body) > 0",
        "body = '', headers = '{}'",
    ),
)

RECORDS = """
UPDATE circuit.records r SET data = '{}', before = NULL, written = '{}', deleted = true, updated_at = now()
FROM unnest(%(objects)s::text[], %(ids)s::text[]) AS f (object, id)
WHERE r.tenant = %(tenant)s AND r.object = f.object AND r.id = f.id
AND (r.data <> '{}' OR r.before IS NOT NULL OR NOT r.deleted)
"""
COUNT_RECORDS = """
SELECT count(*) FROM circuit.records r JOIN unnest(%(objects)s::text[], %(ids)s::text[]) AS f (object, id)
ON r.object = f.object AND r.id = f.id
WHERE r.tenant = %(tenant)s AND (r.data <> '{}' OR r.before IS NOT NULL OR NOT r.deleted)
"""
LATEST = "DELETE FROM circuit.latest WHERE delivery = ANY(%(deliveries)s)"
COUNT_LATEST = "SELECT count(*) FROM circuit.latest WHERE delivery = ANY(%(deliveries)s)"

WAITING = "SELECT id, handler FROM circuit.queue WHERE tenant = %(tenant)s AND delivery = ANY(%(deliveries)s)"
# What waits is taken off the queue, with an outcome that says so; whoever runs it now finds it settled by another.
CANCEL = f"""
WITH gone AS (
    DELETE FROM circuit.queue WHERE id = %(id)s AND handler = %(handler)s
    RETURNING delivery, ordinal, handler, tenant)
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
SELECT delivery, ordinal, handler, %(execution)s, tenant, 'cancelled', '{WORD}' FROM gone
"""
# What uses an id that a vendor will not be asked for any more.
RESOLVE = """
SELECT circuit.resolve(array_agg(DISTINCT e.id)) FROM circuit.effects w
CROSS JOIN LATERAL unnest(w.needs) AS n (id) JOIN circuit.effects e ON e.id = n.id
WHERE w.status = 'pending' AND w.needs IS NOT NULL AND e.tenant = %(tenant)s AND e.status = 'discarded'
HAVING count(*) > 0
"""
