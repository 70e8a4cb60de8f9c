"""The key that seals what lies in the database: from the environment, or from a file that its owner alone can read.

    CIRCUIT_SECRETS_KEY    the key, or keys, separated by commas: the first seals, each opens
    [secrets] key_file     a file that holds the same, one on a line
    .circuit/secrets.key   such a file, made by itself (0600) beside the embedded database

A database that others run too has many copies in many places, so its key is never made by itself: each host would make
another.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from secrets import token_hex

from circuit_script.config import Settings
from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.cipher import Cipher, keys_of, new_key

VARIABLE = "CIRCUIT_SECRETS_KEY"
FILE = "secrets.key"
MAKE = "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"


class Keys:
    """A `Cipher` of the keys that there are now: a file that changes is read again, so that nobody who is at work seals
    with a key that is given up.

    Every method raises SecretsUnavailable without a key, for one that is none, and for a file that others can read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = key_file(settings)
        self._read: tuple[tuple[int, int, int] | None, Cipher] | None = None

    @property
    def in_file(self) -> Path | None:
        """The file that they come from; None where the environment has them."""
        return None if os.environ.get(VARIABLE) else self._path

    def seal(self, text: str, of: str) -> bytes:
        """As `Cipher.seal`. The embedded database's key is made when it is not there."""
        return self.cipher(make=True).seal(text, of)

    def open(self, sealed: bytes, of: str) -> str:
        """As `Cipher.open`. Raises SealBroken, too."""
        return self.cipher().open(sealed, of)

    def cipher(self, *, make: bool = False) -> Cipher:
        """Of the keys as they are now."""
        mark = self._mark()
        if self._read is None or self._read[0] != mark:
            cipher = cipher_of(self._settings, make=make)
            self._read = (mark or self._mark(), cipher)
        return self._read[1]

    def _mark(self) -> tuple[int, int, int] | None:
        """What says that a file is another one; nothing for the environment, which stays as it is."""
        if self.in_file is None:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def cipher_of(settings: Settings, *, make: bool = False) -> Cipher:
    """The cipher of this installation, as it is now; with ``make`` the embedded database's key is made.

    Raises SecretsUnavailable without a key, for one that is none, and for a file that others can read.
    """
    if said := os.environ.get(VARIABLE, ""):
        return Cipher(_read(said, VARIABLE))
    path = key_file(settings)
    if not path.exists():
        if settings.database_url is not None or settings.secrets.key_file:
            raise SecretsUnavailable(
                f"There is no key: neither {VARIABLE} nor {path}.",
                cure=f"Make one, keep it where your other keys are, and give it as {VARIABLE}: {MAKE}",
            )
        if not make:
            raise SecretsUnavailable(
                f"{path} is not there any more.", cure="Bring it back from a copy, or put every secret in again."
            )
        make_key(path)
    # What a container's platform mounts is often readable for everybody in it: then the container is the fence.
    return Cipher(_read(_text(path, closed=not settings.secrets.key_file), str(path)))


def key_file(settings: Settings) -> Path:
    """Where the key lies, where the environment has none."""
    if named := settings.secrets.key_file:
        return settings.folder / Path(named).expanduser()
    return settings.state / FILE


def make_key(path: Path) -> None:
    """A new key for its owner's eyes; one that somebody else makes in this moment stays. Raises SecretsUnavailable."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{token_hex(8)}")  # of nobody who was killed here before
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{new_key()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
        finally:
            fresh.unlink()
    except OSError as error:
        raise _unreadable(path, error) from None


def _text(path: Path, *, closed: bool) -> str:
    try:
        with path.open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            if closed and stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                raise SecretsUnavailable(f"Others than its owner can read {path}.", cure=f"chmod 600 {path}")
            return file.read(64 * 1024)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> SecretsUnavailable:
    said = error.strerror if isinstance(error, OSError) else "it is no text"
    return SecretsUnavailable(f"{path}: {said}.", cure="Let this user read it, or run as its owner.")


def _read(text: str, where: str) -> list[bytes]:
    try:
        keys = keys_of(text)
    except ValueError as error:
        raise SecretsUnavailable(f"{where}: {error}.", cure=f"A key is 32 bytes in base64: {MAKE}") from None
    if not keys:
        raise SecretsUnavailable(f"{where} is empty.", cure=f"Make a key: {MAKE}")
    return keys
