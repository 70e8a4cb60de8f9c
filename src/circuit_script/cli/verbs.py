"""Every verb with its line in ``--help``; a verb's module is imported when the verb is used, not before.

Importing all of them took 0.4 s, which each command line and each Tab would have paid.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from circuit_script.cli.output import nobody_reads


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb. Its module has NAME, EXAMPLES and ``run``, or, with verbs of its own below it, ``app``."""

    name: str
    module: str
    help: str


# In the order of an app's life.
VERBS = (
    Verb("init", "init", "Make a new app: a trigger and an endpoint that score leads, their tests, its settings."),
    Verb("dev", "dev.command", "Run the app while you write it: what you save is live in under a second."),
    Verb("test", "test", "Run the app's tests with pytest, each on a database of its own."),
    Verb("deploy", "deploy", "Test the app, make a release of it, and take it live on every worker."),
    Verb("releases", "releases", "Show which releases there are, which one is live, and how each did."),
    Verb("shadow", "shadow", "Show what a candidate would have done with live events, and take it live or end that."),
    Verb("rollback", "rollback", "Take the release before, or another one, live again, in under a second."),
    Verb(
        "checklist",
        "checklist",
        "Take the app to production in seven steps: test, tag, staging, smoke, production, watch, roll back.",
    ),
    Verb("effects", "effects", "Show what a release did to the world, and how to repair it."),
    Verb("invoke", "invoke", "Run one handler now and show what it did."),
    Verb("enqueue", "enqueue", "Let a job run by itself, now or later."),
    Verb("jobs", "jobs", "Show which jobs wait or run and when schedules fire, and run one now."),
    Verb("objects", "objects", "Write schemas of your objects from what the CRM says of their fields."),
    Verb("adopt", "adopt", "Make an existing script run as a governed job, by the clock."),
    Verb("replay", "replay", "Run past events again: one, or many by a filter; dry, or for real."),
    Verb("mirror", "mirror", "Show how ours compares with an old service that still answers."),
    Verb("cutover", "cutover", "Let this app act in place of an old service, or the old service again."),
    Verb("reconcile", "reconcile", "Ask each CRM what has changed, and take in what no webhook has told."),
    Verb("send", "send", "Sign and send a sample webhook, as the vendor would."),
    Verb("logs", "logs", "Show what the handlers logged, and which executions failed."),
    Verb("trace", "trace", "Show what an execution did, step by step, and how long each step took."),
    Verb("status", "status", "Show deliveries, queue, executions and dead letters."),
    Verb("alerts", "alerts", "Show what is wrong and who was told; acknowledge, silence, and try a channel."),
    Verb("dead", "dead", "Show dead letters, edit and retry them, or discard them."),
    Verb("doubt", "doubt", "Show effects of which nobody knows whether the vendor did them, and settle them."),
    Verb("why", "why", "Say why an event or a record waits, and for how long."),
    Verb("pause", "pause", "Stop a trigger, a tenant, a connector or a record for now; what waits stays."),
    Verb("resume", "resume", "Let go on what was paused, in its order."),
    Verb("cancel", "cancel", "Take what waits out of its queue for good, with its reason."),
    Verb("doctor", "doctor.command", "Check this machine, the app and its database, and say what to mend."),
    Verb("judge", "judge", "Say what the Judgment Protocol thinks of a text. Exits 0 when it may pass, 1 when not."),
    Verb("limits", "limits", "Show each handler's limits, how near to them it came, and who uses most."),
    Verb("quotas", "quotas", "Show how much of its quotas each tenant has used."),
    Verb("spend", "spend", "Show what model calls have cost, and which ones are not settled."),
    Verb("config", "config", "Show every setting and where its value came from."),
    Verb("connect", "connect", "Connect a tenant to its account at a vendor."),
    Verb("connections", "connections", "Show which tenants are connected to which accounts of vendors."),
    Verb("keys", "keys", "Make, list and revoke the API keys of endpoints."),
    Verb(
        "secrets", "secrets", "Put in vendors' tokens and keys, sealed; see which there are; change the key that seals."
    ),
    Verb("people", "people", "Say who may sign in, and what each may do for which tenant."),
    Verb("backup", "backup", "Copy the whole database into one file, while it is at work."),
    Verb("restore", "restore", "Put a backup into an empty database, or with --replace into one whose content may go."),
    Verb("forget", "forget", "Blank everything about one person: bodies, logs, replies, effects, records."),
    Verb("migrate", "migrate", "Bring the database to this version's schema, as serve does when it starts."),
    Verb("serve", "serve", "Run the app: PostgreSQL, gateway, worker and dashboard. SIGTERM drains and exits 0."),
    Verb("demo", "demo.command", "Start an app and a CRM that sends it signed webhooks; show what became of each."),
    Verb("explain", "explain", "Explain an error: what you see, why, what to do."),
)


class Verbs(TyperGroup):
    """The command line's verbs, each loaded when it is called for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands.update({verb.name: TyperCommand(verb.name, help=verb.help) for verb in VERBS})

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            nobody_reads()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        for verb in VERBS:
            if args and verb.name == args[0]:
                self.commands[verb.name] = load(verb)
        return super().resolve_command(ctx, args)


def group(name: str, help: str, examples: str) -> typer.Typer:
    """A verb that has verbs of its own below it."""
    return typer.Typer(
        name=name,
        help=help,
        epilog=examples,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While modules are imported nobody looks for cycles among what they make; and what they made nobody looks through
    later, nor at the end: it stays as long as the process. That was a quarter of the time of a verb that only looks."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load(verb: Verb) -> Any:
    """The verb's command, from its module."""
    with loading():
        module = import_module(f"circuit_script.cli.{verb.module}")
    app = None if hasattr(module, "run") else module.app
    if app is None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        app.command(module.NAME, epilog=module.EXAMPLES)(module.run)
    command = typer.main.get_command(app)
    command.name = verb.name
    return command
