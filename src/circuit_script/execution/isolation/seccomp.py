"""A filter of system calls for ``strict``: no sockets but pairs, no tracing, no namespaces, no way round a limit.

Written as the kernel reads it (struct sock_filter, Documentation/userspace-api/seccomp_filter.rst). What is denied
fails with an errno; nothing is killed for it. In ``standard`` a small one keeps processes below the child that made
them, where they are counted.
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
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "setpriority": (141, 140), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263),  # Landlock lets them look at anybody's files
    "ioprio_set": (251, 30), "syslog": (103, 116), "quotactl_fd": (443, 443),
    "io_setup": (206, 0),  # the machine has one number of these for all
}  # fmt: skip
# Landlock does not mediate these, and the uid may be that of other files, or of another child's. What copies a file
# or unpacks an archive calls them in passing and fails when they do: it is told that all went well.
_WITHOUT_EFFECT = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "sync": (162, 81), "syncfs": (306, 267),  # these would write what the whole machine has not yet written
}  # fmt: skip
# Descriptors on their way are counted for all processes of a uid, and the zygote has to send some.
_OF_CHILDREN = {"sendmsg": (46, 211), "sendmmsg": (307, 269)}
# FS_IOC_SETFLAGS and its kin, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY: for them a file need not be open for writing.
_CHANGES_OF_FILES = (0x40086602, 0x40046602, 0x40087602, 0x40047602, 0x401C5820, 0x40806685)
_OF_ONESELF = {  # allowed when the process named first is oneself (0)
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}  # fmt: skip
_CLONE, _CLONE3, _PRCTL, _PRLIMIT, _SOCKETPAIR = (56, 220), (435, 435), (157, 167), (302, 261), (53, 199)
_IOCTL = (16, 29)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_NAMESPACES = 0x7E020080  # every CLONE_NEW…, the one of time too
_CLONE_PARENT = 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SCHED_CORE = 1, 4, 36, 62
_UNIX, _STREAM, _SEQPACKET, _TYPE = 1, 1, 5, 0xF

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
    _install(_program(os.uname().machine))


def install_for_child() -> None:
    """Filter a strict child beyond `install`: what its zygote must be able to do. Raises OSError."""
    place, _ = _ARCHITECTURES[os.uname().machine]
    denied = (each for numbers in _OF_CHILDREN.values() for each in _denied(numbers[place], errno.EPERM))
    _install(iter([(_LOAD, 0, 0, _NUMBER), *denied, (_RETURN, 0, 0, _ALLOW)]))  # `install` saw to the architecture


def install_usual() -> None:
    """The small filter of standard isolation. Raises OSError. Needs no_new_privs."""
    if known():
        _install(_usual(os.uname().machine))


def _install(instructions: Iterator[Instruction]) -> None:
    program = b"".join(struct.pack("<HBBI", *each) for each in instructions)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    call("seccomp", _SECCOMP[os.uname().machine], _SET_MODE_FILTER, 0, ctypes.create_string_buffer(header, 16))


def _usual(machine: str) -> Iterator[Instruction]:
    """No process beside one's own parent's, and none that is given away when its parent ends."""
    place, architecture = _ARCHITECTURES[machine]
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _ALLOW)  # a program of 32 bits
    yield (_LOAD, 0, 0, _NUMBER)
    yield from _denied(_CLONE3[place], errno.ENOSYS)
    yield from _when(_CLONE[place], [(_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, _CLONE_PARENT), _no()])
    yield from _when(_PRCTL[place], _only(_PR_SET_CHILD_SUBREAPER, 1))
    yield (_RETURN, 0, 0, _ALLOW)


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
    for numbers in _WITHOUT_EFFECT.values():
        yield from _denied(numbers[place], 0)
    yield from _denied(_CLONE3[place], errno.ENOSYS)  # its flags cannot be seen from here; who gets this takes clone
    unseen = _NAMESPACES | _CLONE_PARENT
    yield from _when(_CLONE[place], [(_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, unseen), _no()])
    for numbers in _OF_ONESELF.values():
        yield from _when(numbers[place], [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 1, 0, 0), _no()])
    yield from _when(_PRLIMIT[place], [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 1, 0, 0), _no()])
    subreaper = _only(_PR_SET_CHILD_SUBREAPER, 1)
    death = _only(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    alone_on_a_core = [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 1, _PR_SCHED_CORE), _no()]
    yield from _when(_PRCTL[place], [*_only(_PR_SET_DUMPABLE, 1), *death, *subreaper, *alone_on_a_core])
    changes = [each for number in _CHANGES_OF_FILES for each in ((_EQUAL, 0, 1, number), _no())]
    yield from _when(_IOCTL[place], [(_LOAD, 0, 0, _argument(1)), *changes])
    kinds = [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 1, 0, _UNIX), _no()]
    kinds += [(_LOAD, 0, 0, _argument(1)), (_AND, 0, 0, _TYPE)]
    kinds += [(_EQUAL, 2, 0, _STREAM), (_EQUAL, 1, 0, _SEQPACKET), _no()]
    yield from _when(_SOCKETPAIR[place], kinds)  # one without a connection can send to any address
    yield (_RETURN, 0, 0, _ALLOW)


def _only(option: int, value: int) -> list[Instruction]:
    """This option of prctl with no other value."""
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_EQUAL, 0, 3, option),
        (_LOAD, 0, 0, _argument(1)),
        (_EQUAL, 1, 0, value),
        _no(),
    ]


def _argument(number: int) -> int:
    return _FIRST_ARGUMENT + 8 * number  # its lower half: little-endian


def _no() -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _denied(number: int, why: int) -> Iterator[Instruction]:
    if number >= 0:
        yield (_EQUAL, 0, 1, number)
        yield (_RETURN, 0, 0, _ERRNO | why)


def _when(number: int, then: list[Instruction]) -> Iterator[Instruction]:
    """Run ``then`` for this call; whoever falls through it is allowed."""
    yield (_EQUAL, 0, len(then) + 1, number)
    yield from then
    yield (_RETURN, 0, 0, _ALLOW)
