"""Which tricks there are, the modes in which each must fail, and what becomes of its execution.

Tricks that need no neighbours stand in tests/integration/execution as well, with finer assertions: test_pool_runaways
(what is killed and why), test_pool_hardness (the worker's own loop, memory and patience). They are not counted twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from circuit_script.execution.outcome import Breached, Failed, Outcome

MB = 1024 * 1024
Mode = Literal["standard", "strict"]
BOTH: tuple[Mode, ...] = ("standard", "strict")
STRICT: tuple[Mode, ...] = ("strict",)
SHORT = {"wall_time": 0.15}
SMALL = {"memory": 64 * MB, "wall_time": 5}
LONG = {"wall_time": 10}  # it ends long before


@dataclass(frozen=True, slots=True)
class Trick:
    """``ends`` is the limit that it breaches, a pattern of the reason of its failure, or None where only its effects
    count. ``stains``: it changes Python's objects, which its own tenant may keep."""

    name: str
    modes: tuple[Mode, ...]
    breaches: str = ""
    fails: str = ""
    limits: Mapping[str, Any] = field(default_factory=lambda: LONG)
    stains: bool = False
    needs: str = ""  # in standard mode: "landlock" that scopes signals, or "hiding" of the settings

    def wrong(self, outcome: Outcome) -> str:
        """What is wrong with this outcome; "" for nothing."""
        match outcome:
            case Breached(limit=limit) if self.breaches:
                right = limit in self.breaches.split()
            case Failed(reason=reason) if self.fails:
                right = re.match(self.fails, reason) is not None
            case _:
                right = not (self.breaches or self.fails)
        return "" if right else f"it ended as {outcome}"


def _clings(*names: str) -> list[Trick]:
    return [Trick(name, BOTH, breaches="wall_time", limits=SHORT) for name in names]


def _harmless(*names: str, modes: tuple[Mode, ...] = BOTH, needs: str = "") -> list[Trick]:
    return [Trick(name, modes, needs=needs) for name in names]


CLOSED = "the handler (closed|broke) its connection to the platform"
GARBAGE = "the handler wrote garbage on its connection to the platform"

SWALLOWING = [
    *_clings(
        "swallows_in_a_loop", "goes_on_in_finally", "goes_on_in_del", "goes_on_in_a_weakref_callback", "suppresses",
        "goes_on_in_a_closed_generator", "goes_on_in_exit", "swallows_cancellation", "shields_itself", "swaps_the_loop",
        "nests_a_loop", "traces_and_swallows", "ignores_the_alarm", "blocks_every_signal", "switches_the_timer_off",
        "stops_the_clock",
    ),
    Trick("swallows_the_limit", BOTH, breaches="db_queries"),
    Trick("goes_on_at_exit", BOTH, fails="SystemExit"),
    Trick("goes_on_in_the_excepthook", BOTH, fails="ValueError: look at me"),
    *_harmless("leaves_a_task_that_ignores_cancel", "returns_with_the_alarm_off"),
]  # fmt: skip

BURNING = [
    *_clings(
        "raises_to_a_huge_power", "backtracks", "sums_in_c", "sleeps_in_c_holding_the_lock", "sleeps_in_c",
        "stops_itself", "waits_for_its_pool",
    ),
    Trick("compresses_in_threads", BOTH, breaches="cpu_time", limits={"cpu_time": 0.2, "wall_time": 10}),
    Trick("burns_in_a_subprocess", BOTH, breaches="cpu_time", limits={"cpu_time": 0.2, "wall_time": 10}),
    Trick("burns_in_orphans", BOTH, breaches="cpu_time", limits={"cpu_time": 0.2, "wall_time": 10}),
    *_harmless("leaves_threads", "leaves_a_pool_of_threads", "lowers_its_limits", "prefers_others_to_be_killed"),
    Trick("fills_memfds", ("standard",), breaches="memory", limits=SMALL),
    Trick("fills_memfds", STRICT, fails="PermissionError", limits=SMALL),
    Trick("hides_memfds_in_a_socket", STRICT, fails="PermissionError", limits=SMALL),
    *(
        Trick(name, BOTH, breaches="memory", limits=SMALL)
        for name in (
            "shares_anonymous_memory", "allocates_in_a_fork", "allocates_in_orphans", "allocates_below_a_thread",
            "lifts_its_limit",
        )
    ),
    *_harmless("fills_shared_memory_files", "fills_temporary_files", modes=STRICT),
    Trick("leaves_temporary_files", STRICT, stains=True),
    Trick("digs_deep", STRICT, fails="the handler left its process with exit code 1"),
]  # fmt: skip

BREEDING = [
    *_harmless(
        "forks_and_leaves",
        "forks_twice_into_a_session",
        "detaches_a_subprocess",
        "spawns_by_posix",
        "uses_multiprocessing",
        "makes_a_brother",
        "lets_its_orphans_go",
    ),
    Trick("is_a_fork_bomb", BOTH, breaches="processes cpu_time memory wall_time", limits={"wall_time": 1}),
    *_harmless(
        "survives_its_parent",
        "hides_from_the_worker",
        "limits_others",
        "slows_others_down",
        "takes_what_the_machine_has_once",
        "puts_descriptors_on_their_way",
        modes=STRICT,
    ),
    *_harmless("is_a_fork_bomb_in_sessions", modes=STRICT),
    Trick("exits", BOTH, fails="the handler left its process with exit code 0"),
    Trick("aborts", BOTH, fails="the handler's process was killed by SIGABRT"),
    Trick("kills_itself", BOTH, fails="the handler's process was killed by SIGKILL"),
    Trick("crashes", BOTH, fails="the handler's process was killed by SIGSEGV"),
    *(
        Trick(name, BOTH, fails=f"the handler's process was killed by {said}$")
        for name, said in (
            ("kills_itself_in_real_time", "signal 40"),
            ("kills_itself_by_the_first_signal_of_real_time", "SIGRTMIN"),
            ("kills_itself_by_a_signal_of_the_library", "signal 33"),
            ("kills_itself_by_a_signal_that_nobody_uses", "SIGPWR"),
        )
    ),
    *_harmless("kills_the_zygote", "stops_everybody", "kills_everybody", "kills_by_descriptor", needs="landlock"),
]

REACHING = [
    *_harmless(
        "traces_others", "reads_the_memory_of_others", "reads_the_proc_of_others", "takes_a_descriptor_of_others",
        needs="landlock",
    ),
    *_harmless(
        "reads_settings_and_passwords", "uncovers_the_settings", "connects_to_the_database", needs="hiding",
    ),
    *_harmless("reads_its_environment", "looks_for_inherited_descriptors", "gains_rights"),
    *_harmless(
        "changes_the_app", "changes_the_platform", "reads_the_homes", "opens_sockets", "opens_sockets_in_c",
        "connects_in_a_subprocess", "makes_namespaces", "sends_without_a_connection", "shares_memory_by_number",
        "changes_what_is_said_of_files", "watches_what_others_do_with_files", modes=STRICT,
    ),
]  # fmt: skip

FORGING = [
    *(
        Trick(name, BOTH, fails=GARBAGE)
        for name in (
            "writes_garbage", "claims_a_huge_frame", "sends_deep_nesting", "answers_itself", "forges_errors_of_others",
            "invents_a_kind_of_result",
        )
    ),
    *_clings("sends_half_a_frame", "scribbles_in_shared_memory", "removes_the_audit_hook"),
    Trick("repeats_one_number", BOTH, breaches="db_queries"),
    *_harmless(
        "forges_a_result_and_goes_on", "forges_a_result_and_burns", "forges_two_results", "asks_as_somebody_else",
    ),
    Trick("floods_and_never_reads", BOTH, breaches="wall_time", fails="the handler", limits={"wall_time": 0.5}),
    Trick("floods_the_log", BOTH, breaches="log_bytes", limits={"wall_time": 10, "log_bytes": 100_000}),
    Trick("floods_the_log_raw", BOTH, breaches="log_bytes", limits={"wall_time": 10, "log_bytes": 100_000}),
    Trick("forgets_its_breach", BOTH, breaches="db_queries"),
    Trick("replaces_the_platform", BOTH, breaches="db_queries"),
    Trick("lets_go_of_everything", BOTH, fails=CLOSED),
    Trick("puts_another_file_in_its_place", BOTH, fails=CLOSED),
    Trick("takes_shared_memory_away", BOTH, fails="the handler left its process with exit code 1"),
    Trick("says_that_it_never_began", BOTH, fails="the handler left its process with exit code 0"),
]  # fmt: skip

LEAVING = [
    *_harmless("goes_elsewhere", "opens_its_mask", "closes_the_standard_streams"),
    *(Trick(name, BOTH, stains=True) for name in ("patches_the_library", "keeps_a_secret_in_a_global")),
]

TRICKS = (*SWALLOWING, *BURNING, *BREEDING, *REACHING, *FORGING, *LEAVING)
