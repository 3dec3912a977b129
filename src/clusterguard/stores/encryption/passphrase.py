"""age for who knows a passphrase, a piece at a time.

pyrage (1.4) does this only for bytes in memory as a whole (`pyrage.passphrase`), and a database is too large for
that. So the format is written and read here (https://age-encryption.org/v1, one scrypt stanza), all cryptography
coming from the library of that name. Deriving the key takes 256 MiB for about a second, which is what makes guessing
dear; it is what the age program takes too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ObjectCorruptError, WrongKeyError
from clusterguard.stores.base import CHUNK_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    from clusterguard.stores.base import ByteReader, ObjectWriter

__all__ = ["PassphraseReader", "PassphraseWriter", "is_for_passphrase"]

_BEGINNING: Final = b"age-encryption.org/v1\n-> scrypt "
_LABEL: Final = b"age-encryption.org/v1/scrypt"
_WORK_FACTOR: Final = 18
_LARGEST_WORK_FACTOR: Final = 22  # what the age program accepts: more would let a forged file take all memory
_SALT_BYTES, _KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 16, 16, 16
_PLAIN_BYTES: Final = 64 * 1024
_ENCRYPTED_BYTES: Final = _PLAIN_BYTES + _TAG_BYTES
# Salt (16 bytes), work factor, wrapped key (32 bytes), MAC (32 bytes), in base64 without padding.
_HEADER: Final = re.compile(
    rb"(age-encryption\.org/v1\n-> scrypt ([\w+/]{22}) ([1-9]\d?)\n([\w+/]{43})\n---) ([\w+/]{43})\n", re.ASCII
)
_LONGEST_HEADER: Final = 256
_CORRUPT: Final = "restore from another copy, and check the disk or server below this store"


def is_for_passphrase(beginning: bytes) -> bool:
    """Return whether an age file that begins so is opened by a passphrase."""
    return beginning.startswith(_BEGINNING)


class PassphraseWriter:
    """Encrypts what is written for who knows a passphrase.

    Args:
        sink: Gets the age file.
        passphrase: Any text.
    """

    def __init__(self, sink: ObjectWriter, *, passphrase: str) -> None:
        file_key, salt = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_SALT_BYTES)
        wrapped = _cipher(_stretched(passphrase, salt, _WORK_FACTOR)).encrypt(bytes(12), file_key, None)
        stanza = b"%s%s %d\n%s\n---" % (_BEGINNING, _text(salt), _WORK_FACTOR, _text(wrapped))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self._sink = sink
        self._payload = _Payload(file_key, nonce)
        self._gathered = bytearray()
        sink.write(b"%s %s\n%s" % (stanza, _text(_mac(file_key, stanza)), nonce))

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""
        self._gathered += data
        # The last chunk of the file is marked as such, so one is held back until more comes.
        whole = (len(self._gathered) - 1) // _PLAIN_BYTES * _PLAIN_BYTES
        if whole > 0:
            chunks = [
                self._payload.encrypt(bytes(self._gathered[at : at + _PLAIN_BYTES]), last=False)
                for at in range(0, whole, _PLAIN_BYTES)
            ]
            del self._gathered[:whole]
            self._sink.write(b"".join(chunks))

    def finish(self) -> None:
        """End the file."""
        self._sink.write(self._payload.encrypt(bytes(self._gathered), last=True))


class PassphraseReader:
    """Decrypts what is read; every byte that it gives was authenticated.

    Args:
        source: Gives the age file.
        passphrase: The one it was encrypted with.
    """

    def __init__(self, source: ByteReader, *, passphrase: str) -> None:
        self._source = source
        self._passphrase = passphrase
        self._unread = bytearray()
        self._ready = memoryview(b"")
        self._payload: _Payload | None = None
        self._done = False

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end of a whole file.

        Raises:
            WrongKeyError: The passphrase is not the one.
            ObjectCorruptError: The file is cut, was changed, or is followed by other bytes.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        if not self._ready and not self._done and size:
            self._ready = memoryview(self._next_chunk())
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def _next_chunk(self) -> bytes:
        if self._payload is None:
            self._payload = self._opened()
        # One byte more than a chunk tells whether another one follows.
        self._fill(_ENCRYPTED_BYTES + 1)
        self._done = len(self._unread) <= _ENCRYPTED_BYTES
        chunk = bytes(self._unread[:_ENCRYPTED_BYTES])
        del self._unread[:_ENCRYPTED_BYTES]
        return self._payload.decrypt(chunk, last=self._done)

    def _opened(self) -> _Payload:
        self._fill(_LONGEST_HEADER)
        header = _HEADER.match(self._unread)
        if header is None:
            raise ObjectCorruptError("the bytes have no whole header of an age file", hint=_CORRUPT)
        stanza, salt, factor, wrapped, mac = header.groups()
        work_factor = int(factor)
        if work_factor > _LARGEST_WORK_FACTOR:
            raise ObjectCorruptError(
                f"the age file wants a work factor of {work_factor}, and 2^{work_factor} KiB of memory",
                hint=f"clusterguard writes {_WORK_FACTOR} and reads up to {_LARGEST_WORK_FACTOR}: it was changed",
            )
        file_key = self._unwrapped(_bytes(salt), work_factor, _bytes(wrapped))
        if not hmac.compare_digest(_mac(file_key, stanza), _bytes(mac)):
            raise ObjectCorruptError("the header of the age file was changed", hint=_CORRUPT)
        nonce = bytes(self._unread[header.end() : header.end() + _NONCE_BYTES])
        if len(nonce) < _NONCE_BYTES:
            raise ObjectCorruptError("the age file is cut after its header", hint=_CORRUPT)
        del self._unread[: header.end() + _NONCE_BYTES]
        return _Payload(file_key, nonce)

    def _unwrapped(self, salt: bytes, work_factor: int, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(_stretched(self._passphrase, salt, work_factor)).decrypt(bytes(12), wrapped, None)
        except InvalidTag:
            raise WrongKeyError(
                "the object is encrypted with another passphrase",
                hint="name the one it was encrypted with; damage to its first bytes looks the same",
            ) from None

    def _fill(self, size: int) -> None:
        while len(self._unread) < size and (piece := self._source.read(CHUNK_BYTES)):
            self._unread += piece


class _Payload:
    """The chunks of 64 KiB, each encrypted under its number and whether it is the last."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = _cipher(_derived(file_key, salt=nonce, purpose=b"payload"))
        self._number = 0

    def encrypt(self, plain: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last=last), plain, None)

    def decrypt(self, chunk: bytes, *, last: bool) -> bytes:
        from cryptography.exceptions import InvalidTag

        first = self._number == 0
        try:
            plain = self._cipher.decrypt(self._nonce(last=last), chunk, None)
        except InvalidTag:
            raise _changed() from None
        # An empty chunk stands for an empty file only: elsewhere it would be a second way to write the same.
        if not plain and not first:
            raise _changed()
        return plain

    def _nonce(self, *, last: bool) -> bytes:
        number, self._number = self._number, self._number + 1
        return number.to_bytes(11, "big") + bytes([last])


def _changed() -> ObjectCorruptError:
    return ObjectCorruptError("encrypted object is truncated or corrupt", hint=_CORRUPT)


def _cipher(key: bytes) -> ChaCha20Poly1305:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def _stretched(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=_LABEL + salt, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase.encode())


def _derived(file_key: bytes, *, salt: bytes, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=purpose).derive(file_key)


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(file_key, salt=b"", purpose=b"header"), header, hashlib.sha256)


def _text(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    decoded = base64.b64decode(text + b"=" * (-len(text) % 4))
    # Unused bits of the last letter must be zero, or one file could be written in several ways.
    if _text(decoded) != text:
        raise ObjectCorruptError("the header of the age file was changed", hint=_CORRUPT)
    return decoded
