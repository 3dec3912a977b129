"""age for recipients: X25519 and SSH keys. The only user of pyrage.

pyrage reads from one object and writes to another until all is done, so it runs in a thread of its own, with a
`Channel` between it and whoever writes or reads. The thread never outlives the ``with`` block it was made for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.errors import ConfigError, ObjectCorruptError, WrongKeyError
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.channel import Channel, GivenUpError
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clusterguard.stores.base import ByteReader, ObjectWriter

__all__ = ["DecryptingReader", "EncryptingWriter", "new_key_pair", "read_identities", "read_recipients"]

_Key: TypeAlias = Any  # pyrage's classes have no types
_OWN_PRIVATE: Final = "AGE-SECRET-KEY-"
_SSH_PRIVATE: Final = "PRIVATE KEY-----"
_NO_MATCH: Final = "No matching keys found"
_CORRUPT: Final = "restore from another copy, and check the disk or server below this store"


def new_key_pair() -> tuple[str, str]:
    """Return a new private key and its public one, as age-keygen writes them.

    Raises:
        ConfigError: pyrage is not installed.
    """
    identity = _pyrage().x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def read_recipients(lines: Sequence[str]) -> list[_Key]:
    """Return the public keys of some lines.

    Raises:
        ConfigError: One is no public key of a known type, or pyrage is not installed.
    """
    return [_recipient(line.strip()) for line in lines]


def read_identities(texts: Sequence[str]) -> list[_Key]:
    """Return the private keys of some identity files: age's own, or one SSH key each.

    Raises:
        ConfigError: One holds none, or pyrage is not installed. No text of the file is told.
    """
    return [key for text in texts for key in _identities(text)]


class EncryptingWriter:
    """Encrypts what is written for some recipients.

    Args:
        sink: Gets the age file, from a thread of this writer.
        recipients: From `read_recipients`.
    """

    def __init__(self, sink: ObjectWriter, *, recipients: Sequence[_Key]) -> None:
        self._sink = _Sink(sink.write)
        self._plain: Channel[bytes] = Channel()
        self._failure: BaseException | None = None
        self._worker = _start(partial(self._encrypt, recipients))

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""
        for piece in _pieces(data):
            self._plain.send(piece)

    def finish(self) -> None:
        """End the file; the sink has all of it when this returns."""
        self._plain.end()
        self._worker.join()
        if self._failure is not None:
            raise self._failure

    def abort(self) -> None:
        """Give the file up."""
        self._plain.end(GivenUpError())
        self._worker.join()

    def _encrypt(self, recipients: Sequence[_Key]) -> None:
        import pyrage

        source = _Source(self._plain.receive)
        try:
            pyrage.encrypt_io(source, self._sink, recipients)
            # Of what fails while it writes its last bytes, pyrage says nothing.
            self._failure = source.failure or self._sink.failure
        except BaseException as error:  # noqa: BLE001 - raised again by whoever writes or finishes
            self._failure = source.failure or self._sink.failure or error
        finally:
            # Whoever still writes must not wait for room that this thread will never make.
            self._plain.refuse(self._failure or GivenUpError())


class DecryptingReader:
    """Decrypts what is read; every byte that it gives was authenticated.

    Args:
        source: Gives the age file, read from a thread of this reader.
        identities: From `read_identities`.
    """

    def __init__(self, source: ByteReader, *, identities: Sequence[_Key]) -> None:
        self._source = _Source(lambda: source.read(CHUNK_BYTES))
        self._plain: Channel[bytes] = Channel()
        self._ready = memoryview(b"")
        self._worker = _start(partial(self._decrypt, identities))

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end of a whole file.

        Raises:
            WrongKeyError: None of the identities opens it.
            ObjectCorruptError: It is no age file, is cut, was changed, or is followed by other bytes.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        if not self._ready and size:
            self._ready = memoryview(self._plain.receive())
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def close(self) -> None:
        """End the thread, wherever it is; afterwards nobody reads from the source."""
        self._plain.refuse(GivenUpError())
        self._worker.join()

    def _decrypt(self, identities: Sequence[_Key]) -> None:
        import pyrage

        gathered = _Gatherer(self._plain.send)
        sink = _Sink(gathered.write)
        try:
            pyrage.decrypt_io(self._source, sink, identities)
            # Not where it failed: these bytes are whole, the file is not.
            gathered.flush()
            self._plain.end(self._source.failure or sink.failure)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads
            self._plain.end(self._source.failure or sink.failure or _meaning_of(error))


class _Source:
    """What pyrage reads from; it turns every exception into one of its own, so the real one is kept."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._piece = memoryview(b"")
        self._ended = False
        self.failure: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        if not self._piece and not self._ended:
            try:
                self._piece = memoryview(self._more())
            except BaseException as error:
                self.failure = error
                raise
            self._ended = not self._piece
        part, self._piece = self._piece[:size], self._piece[size:]
        return bytes(part)


class _Sink:
    """What pyrage writes to; see `_Source`."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self._take(data)
        except BaseException as error:
            self.failure = error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: pyrage asks for it."""


class _Gatherer:
    """Makes large pieces of small ones: pyrage decrypts 8 KiB at a time."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._gathered:
            self._send(bytes(self._gathered))
            self._gathered.clear()


def _start(work: Callable[[], None]) -> Worker:
    worker = Worker(work, name="clusterguard-age")
    worker.start()
    return worker


def _pieces(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    if isinstance(data, bytes) and len(data) <= CHUNK_BYTES:
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


def _meaning_of(error: BaseException) -> BaseException:
    import pyrage

    if isinstance(error, pyrage.DecryptError) and _NO_MATCH in str(error):
        meaning: BaseException = WrongKeyError(
            "no given identity decrypts the object",
            hint="give the identity of one of its recipients; damage to the first bytes looks the same",
        )
    elif isinstance(error, pyrage.DecryptError):
        meaning = ObjectCorruptError(f"the bytes are no whole age file: {error}", hint=_CORRUPT)
    elif isinstance(error, OSError):
        meaning = ObjectCorruptError("encrypted object is truncated or corrupt", hint=_CORRUPT)
    else:
        return error
    meaning.__cause__ = error
    return meaning


def _recipient(line: str) -> _Key:
    pyrage = _pyrage()
    if _OWN_PRIVATE in line.upper() or _SSH_PRIVATE in line:
        raise ConfigError(
            "private key found where a public key is expected: whoever reads it can decrypt every backup",
            hint="treat it as leaked, and write the public key instead, as age-keygen -y prints it",
        )
    kinds = {"age1": pyrage.x25519.Recipient, "ssh-ed25519 ": pyrage.ssh.Recipient, "ssh-rsa ": pyrage.ssh.Recipient}
    kind = next((kinds[start] for start in kinds if line.startswith(start)), None)
    if kind is None:
        raise _bad_recipient(line, "unknown type")
    try:
        return kind.from_str(line)
    except pyrage.RecipientError as error:
        raise _bad_recipient(line, str(error)) from error


def _bad_recipient(line: str, problem: str) -> ConfigError:
    return ConfigError(
        f"invalid recipient {line[:24]}…: {problem}",
        code="invalid-recipient",
        hint="write a public key of age (age1…) or of SSH (ssh-ed25519 …, ssh-rsa …)",
    )


def _identities(text: str) -> Iterator[_Key]:
    pyrage = _pyrage()
    lines = [line.strip() for line in text.splitlines()]
    try:
        if any(_SSH_PRIVATE in line for line in lines):
            yield pyrage.ssh.Identity.from_buffer(text.strip().encode() + b"\n")
            return
        found = [line for line in lines if line and not line.startswith("#")]
        for line in found:
            yield pyrage.x25519.Identity.from_str(line)
    except (pyrage.IdentityError, ValueError):
        raise _bad_identity("neither age nor SSH") from None
    if not found:
        raise _bad_identity("no key found")


def _bad_identity(problem: str) -> ConfigError:
    # Nothing of the text is told, and neither is the library's error: either may repeat a part of the key.
    return ConfigError(
        f"invalid identity: {problem}",
        code="invalid-identity",
        hint="it is a file as age-keygen writes it (AGE-SECRET-KEY-1…), or a private SSH key without a passphrase",
    )


def _pyrage() -> Any:  # noqa: ANN401 - pyrage has no types
    from clusterguard.stores.encryption.extra import require

    return require("pyrage", purpose="encryption")
