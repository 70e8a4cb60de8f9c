"""A filter of system calls for ``strict``: no sockets but pairs, no tracing, no namespaces, no way round a limit.

Written as the kernel reads it (struct sock_filter, Documentation/userspace-api/seccomp_filter.rst). What is denied
fails with an errno; nothing is killed for it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator

from circuit_script.execution.isolation.kernel import call

# number on x86_64, number on aarch64; -1 where there is none
_NETWORK = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201),
}  # fmt: skip
_FORBIDDEN = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "perf_event_open": (298, 241), "bpf": (321, 280),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "setpriority": (141, 140),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
}  # fmt: skip
_OF_ONESELF = {  # allowed when the process named first is oneself (0)
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}  # fmt: skip
_CLONE, _CLONE3, _PRCTL, _PRLIMIT, _SOCKETPAIR = (56, 220), (435, 435), (157, 167), (302, 261), (53, 199)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_NAMESPACES = 0x7E020080  # every CLONE_NEW…, the one of time too
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_SOCK_DGRAM, _TYPE = 2, 0xF

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

Instruction = tuple[int, int, int, int]


def known() -> bool:
    """Whether there is a filter for this kind of machine."""
    return os.uname().machine in _ARCHITECTURES


def install() -> None:
    """Filter this process and what it starts, for ever. Raises OSError. Needs no_new_privs."""
    program = b"".join(struct.pack("<HBBI", *each) for each in _program(os.uname().machine))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    call("seccomp", _SECCOMP[os.uname().machine], _SET_MODE_FILTER, 0, ctypes.create_string_buffer(header, 16))


def _program(machine: str) -> Iterator[Instruction]:
    place, architecture = _ARCHITECTURES[machine]
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER)
    if machine == "x86_64":
        yield (_AT_LEAST, 0, 1, _X32)
        yield (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    for numbers in _NETWORK.values():
        yield from _denied(numbers[place], errno.EACCES)
    for numbers in _FORBIDDEN.values():
        yield from _denied(numbers[place], errno.EPERM)
    yield from _denied(_CLONE3[place], errno.ENOSYS)  # its flags cannot be seen from here; who gets this takes clone
    yield from _when(_CLONE[place], [(_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, _NAMESPACES), _no()])
    for numbers in _OF_ONESELF.values():
        yield from _when(numbers[place], [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 1, 0, 0), _no()])
    yield from _when(_PRLIMIT[place], [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 1, 0, 0), _no()])
    dumpable = [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 3, _PR_SET_DUMPABLE)]
    dumpable += [(_LOAD, 0, 0, _argument(1)), (_EQUAL, 1, 0, 1), _no(), (_LOAD, 0, 0, _argument(0))]
    death = [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 3, _PR_SET_PDEATHSIG)]
    death += [(_LOAD, 0, 0, _argument(1)), (_EQUAL, 1, 0, int(signal.SIGKILL)), _no()]
    yield from _when(_PRCTL[place], [*dumpable, *death[1:]])
    datagrams = [(_LOAD, 0, 0, _argument(1)), (_AND, 0, 0, _TYPE), (_EQUAL, 0, 1, _SOCK_DGRAM), _no()]
    yield from _when(_SOCKETPAIR[place], datagrams)  # such a one can send to any address
    yield (_RETURN, 0, 0, _ALLOW)


def _argument(number: int) -> int:
    return _FIRST_ARGUMENT + 8 * number  # its lower half: little-endian


def _no() -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _denied(number: int, why: int) -> Iterator[Instruction]:
    yield (_EQUAL, 0, 1, number)
    yield (_RETURN, 0, 0, _ERRNO | why)


def _when(number: int, then: list[Instruction]) -> Iterator[Instruction]:
    """Run ``then`` for this call; whoever falls through it is allowed."""
    yield (_EQUAL, 0, len(then) + 1, number)
    yield from then
    yield (_RETURN, 0, 0, _ALLOW)
