"""What is not its own: memory and environment of the trusted side, its files, the database, the network."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.behaved import HERE
from app.breeding import others
from app.tricks import denied, evaded, trick

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


@trick
def traces_others(context: Any) -> None:
    for pid in others():
        denied(lambda pid=pid: _checked(LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0)), f"ptrace {pid}")


@trick
def reads_the_memory_of_others(context: Any) -> None:
    for pid in others():
        buffer = ctypes.create_string_buffer(16)
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 16)
        denied(lambda pid=pid, v=vector: _checked(LIBC.process_vm_readv(pid, v, 1, v, 1, 0)), f"memory of {pid}")
        denied(lambda pid=pid: open(f"/proc/{pid}/mem", "rb").close(), f"mem of {pid}")


@trick
def reads_the_proc_of_others(context: Any) -> None:
    for pid in others():
        for name in ("environ", "maps", "auxv", "stack"):
            denied(lambda path=f"/proc/{pid}/{name}": Path(path).read_bytes(), f"/proc/{pid}/{name}")
        for name in ("root", "cwd", "map_files"):
            denied(lambda path=f"/proc/{pid}/{name}": os.listdir(path), f"/proc/{pid}/{name}")
        for number in range(10):  # their numbers may be seen, not where they lead
            denied(lambda path=f"/proc/{pid}/fd/{number}": os.readlink(path), f"/proc/{pid}/fd/{number}")
        with contextlib.suppress(OSError):
            if b"EVASION_SECRET" in Path(f"/proc/{pid}/environ").read_bytes():
                evaded("the worker's environment")


@trick
def takes_a_descriptor_of_others(context: Any) -> None:
    for pid in others():
        for number in (3, 4, 5, 6):
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                denied(lambda h=handle, n=number: _checked(LIBC.syscall(438, h, n, 0)), f"descriptor {number} of {pid}")


@trick
def reads_its_environment(context: Any) -> None:
    for name in os.environ:
        if "SECRET" in name or name.startswith(("DATABASE", "CIRCUIT", "AWS", "OPENAI")):
            evaded(name)
    if b"EVASION_SECRET" in Path("/proc/self/environ").read_bytes():
        evaded("it is in /proc/self/environ")


@trick
def looks_for_inherited_descriptors(context: Any) -> None:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            leads_to = os.readlink(f"/proc/self/fd/{number}")
            known = leads_to.startswith(("/dev/null", "socket:", "/memfd:circuit", "anon_inode:", "pipe:", "/proc"))
            if not known:
                evaded(f"descriptor {number}: {leads_to}")


@trick
def reads_settings_and_passwords(context: Any) -> None:
    for path in ("circuit.toml", ".circuit/postgres.password", ".circuit/serve.lock", "./app/../circuit.toml"):
        denied(lambda path=path: Path(HERE, path).read_bytes(), path)
    if any(name.endswith(("password", "lock")) for name in _names(Path(HERE, ".circuit"))):
        evaded("the names in .circuit")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


@trick
def uncovers_the_settings(context: Any) -> None:
    denied(lambda: _checked(LIBC.umount2(f"{HERE}/.circuit".encode(), 2)), "umount")
    if os.path.isfile(f"{HERE}/circuit.toml"):
        denied(lambda: _checked(LIBC.umount2(f"{HERE}/circuit.toml".encode(), 2)), "umount")
    if os.fork() == 0:
        if LIBC.unshare(0x10000000 | 0x20000) == 0:  # a user namespace of one's own, with every right in it
            os._exit(LIBC.umount2(f"{HERE}/.circuit".encode(), 2) == 0 or os.path.exists(f"{HERE}/.circuit/serve.lock"))
        os._exit(0)
    if os.wait()[1] != 0:
        evaded("umount in a namespace")
    reads_settings_and_passwords(context)


@trick
def connects_to_the_database(context: Any) -> None:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as database:
            database.connect(f"{HERE}/.circuit/s")

    denied(connect, "the database's socket")


@trick
def changes_the_app(context: Any) -> None:
    denied(lambda: Path(__file__).write_text("print('mine now')"), "the app's code")
    denied(lambda: Path(HERE, "app", "added.py").write_text("import os"), "a module of the app")


@trick
def changes_the_platform(context: Any) -> None:
    import circuit_script.errors

    path = Path(circuit_script.errors.__file__)
    denied(lambda: os.close(os.open(path, os.O_WRONLY)), "the platform's code")
    denied(lambda: os.close(os.open(path.with_name("added.py"), os.O_CREAT | os.O_WRONLY)), "a file beside it")


@trick
def reads_the_homes(context: Any) -> None:
    for path in ("/root", "/home", "/var", "/srv", "/etc/shadow", "/var/run/docker.sock", "/run/docker.sock"):
        if os.path.exists(path):
            denied(lambda path=path: os.listdir(path) if os.path.isdir(path) else os.open(path, 0), path)


def _sockets() -> Iterator[tuple[str, Any]]:
    yield "tcp", lambda: socket.socket().connect_ex(("127.0.0.1", 9))
    yield "tcp6", lambda: socket.socket(socket.AF_INET6)
    yield "udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
    yield "unix", lambda: socket.socket(socket.AF_UNIX)
    yield "abstract", lambda: socket.socket(socket.AF_UNIX).connect("\0evasion")
    yield "netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    yield "packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    yield "vsock", lambda: socket.socket(socket.AF_VSOCK)
    yield "raw", lambda: socket.socket(type=socket.SOCK_RAW, proto=1)
    yield "datagram pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


@trick
def opens_sockets(context: Any) -> None:
    for name, attempt in _sockets():
        denied(attempt, name)


@trick
def opens_sockets_in_c(context: Any) -> None:
    """Around Python, and so around every hook."""
    for family in (1, 2, 10, 16, 17, 38, 40):
        denied(lambda family=family: _checked(LIBC.socket(family, 1, 0)), f"family {family}")
    denied(lambda: _checked(LIBC.syscall(425, 8, ctypes.create_string_buffer(120))), "io_uring")


@trick
def connects_in_a_subprocess(context: Any) -> None:
    import subprocess
    import sys

    code = "import socket; socket.socket()"
    if subprocess.run([sys.executable, "-S", "-c", code], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        evaded("a socket in a subprocess")


@trick
def gains_rights(context: Any) -> None:
    with open("/proc/self/status") as file:
        rights = {line.split(":")[0]: line.split()[1] for line in file if line.startswith(("Cap", "NoNewPrivs"))}
    if any(int(rights[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        evaded(rights)
    if rights["NoNewPrivs"] != "1":
        evaded("new privileges")
    denied(lambda: os.setuid(12345), "another uid")
    denied(lambda: os.chroot("/usr"), "chroot")
    denied(lambda: os.mknod("/tmp/circuit-evasion-node", 0o20666, os.makedev(1, 1)), "a device")


@trick
def watches_what_others_do_with_files(context: Any) -> None:
    for library_call in ("inotify_init", "inotify_init1"):
        denied(lambda name=library_call: _checked(getattr(LIBC, name)(0)), library_call)
    slots = os.path.dirname(os.path.dirname(tempfile.gettempdir()))
    denied(lambda: _checked(LIBC.inotify_add_watch(0, slots.encode(), 0xFFF)), "a watch")
    denied(lambda: _checked(LIBC.fanotify_init(0x200, 0)), "fanotify")
    denied(lambda: os.listdir(slots), "the folders of all")
    for name in range(20):
        with contextlib.suppress(FileNotFoundError):
            denied(lambda name=name: os.listdir(f"{slots}/{name}"), f"the folder of {name}")
            denied(lambda name=name: open(f"{slots}/{name}/x", "w").close(), f"a file of {name}")


@trick
def makes_namespaces(context: Any) -> None:
    for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000):
        denied(lambda flag=flag: _checked(LIBC.unshare(flag)), f"namespace {flag:#x}")


@trick
def sends_without_a_connection(context: Any) -> None:
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_RDM):
        denied(lambda kind=kind: socket.socketpair(socket.AF_UNIX, kind), f"a pair of kind {kind}")


@trick
def shares_memory_by_number(context: Any) -> None:
    """System V knows its objects by number, and has no folder that could be closed."""
    library = ctypes.CDLL(None, use_errno=True)
    for name in ("shmat", "shmctl", "shmdt", "msgsnd", "msgrcv", "msgctl", "semop", "semctl", "semtimedop"):
        ctypes.set_errno(0)
        if getattr(library, name)(0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
            evaded(f"{name}: {ctypes.get_errno()}")


@trick
def changes_what_is_said_of_files(context: Any) -> None:
    """Mode, times and attributes, of the app; and of a folder of its uid, as those of others are."""
    for path in (__file__, tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            before = os.stat(path)
            opened = os.open(path, os.O_PATH)
            attempts: list[Callable[[], object]] = [
                lambda path=path: os.chmod(path, 0o777),
                lambda path=path: os.utime(path, (0, 0)),
                lambda path=path: os.setxattr(path, "user.x", b"1"),
                lambda path=path: os.chown(path, os.getuid(), os.getgid()),
                lambda opened=opened: os.chmod(f"/proc/self/fd/{opened}", 0o777),
            ]
            for attempt in attempts:
                with contextlib.suppress(OSError):
                    attempt()
            os.close(opened)
            after = os.stat(path)
            if (before.st_mode, before.st_mtime, before.st_ctime) != (after.st_mode, after.st_mtime, after.st_ctime):
                evaded(path)
    with open(__file__) as file:
        for change in (lambda: os.fchmod(file.fileno(), 0o777), lambda: os.utime(file.fileno(), (0, 0))):
            before = os.stat(__file__)
            with contextlib.suppress(OSError):
                change()
            if os.stat(__file__).st_ctime != before.st_ctime:
                evaded(__file__)
