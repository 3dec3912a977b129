"""`Encryption`: what is done to bytes on their way into a store, and undone on their way out."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError, WrongKeyError
from clusterguard.stores.encryption.age import (
    DecryptingReader,
    EncryptingWriter,
    read_identities,
    read_recipients,
)
from clusterguard.stores.encryption.compression import CompressingWriter, DecompressingReader, check_level
from clusterguard.stores.encryption.passphrase import PassphraseReader, PassphraseWriter, is_for_passphrase
from clusterguard.stores.transfer import PeekedReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.stores.base import ByteReader, ObjectWriter

__all__ = ["SUFFIXES", "Encryption"]

_COMPRESSED, _ENCRYPTED = ".zst", ".age"
SUFFIXES: Final = (_COMPRESSED + _ENCRYPTED, _ENCRYPTED, _COMPRESSED, "")
"""What an encryption may add to a key; the empty one stands for none."""

_PEEK_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How objects are compressed and encrypted, and what opens them.

        Encryption(recipients=("age1…",))                               encrypted for one public key
        Encryption(recipients=("age1…",), identities=(file.read_text(),))    and opened again
        Encryption(passphrase="…")                                      for who knows it
        Encryption()                                                    compressed only

    Memory is constant, but deriving a key from a passphrase takes 256 MiB for about a second.

    Attributes:
        recipients: Public keys, of age (``age1…``) or SSH (``ssh-ed25519 …``, ``ssh-rsa …``).
        identities: The texts of identity files, of age or SSH: what opens the objects.
        passphrase: Instead of both.
        compression_level: Of zstd, 1 to 19; None for no compression.

    Raises:
        ConfigError: A key cannot be read, keys and a passphrase are given at once, or a library is not installed.
    """

    recipients: tuple[str, ...] = ()
    identities: tuple[str, ...] = field(default=(), repr=False)
    passphrase: str | None = field(default=None, repr=False)
    compression_level: int | None = 3

    def __post_init__(self) -> None:
        if self.passphrase is not None and (self.recipients or self.identities):
            raise ConfigError("keys and a passphrase exclude each other", hint="leave one of them out")
        if self.passphrase == "":
            raise ConfigError("the passphrase is empty", hint="make one: age-keygen, or six random words")
        if self.compression_level is not None:
            check_level(self.compression_level)
        if self.recipients or self.identities:
            read_recipients(self.recipients)
            read_identities(self.identities)

    @property
    def encrypts(self) -> bool:
        """Whether a key is needed to read what this writes."""
        return bool(self.recipients or self.identities) or self.passphrase is not None

    @property
    def suffix(self) -> str:
        """What is added to the key of an object that this wrote: ``.zst.age``, ``.age``, ``.zst``, or nothing."""
        compressed = self.compression_level is not None
        return f"{_COMPRESSED if compressed else ''}{_ENCRYPTED if self.encrypts else ''}"

    @property
    def readers(self) -> str:
        """Who opens what this writes: a digest of the public keys, or ``passphrase``; nothing where anybody does."""
        if self.passphrase is not None:
            return "passphrase"
        keys = "\n".join(sorted(self.recipients))
        return hashlib.sha256(keys.encode()).hexdigest() if keys else ""

    @property
    def can_decrypt(self) -> bool:
        """Whether this reads what it writes; with recipients alone, it only writes."""
        return not self.encrypts or bool(self.identities) or self.passphrase is not None

    @contextmanager
    def encrypting(self, sink: ObjectWriter) -> Iterator[ObjectWriter]:
        """Give a writer that passes bytes on encrypted; all have reached the sink when the block is left normally.

        Args:
            sink: Gets the encrypted bytes, from another thread where there are recipients.

        Raises:
            ConfigError: There are identities but no recipient to encrypt for.
        """
        with ExitStack() as stack:
            if self.encrypts:
                sink = stack.enter_context(self._age_writer(sink))
            if self.compression_level is not None:
                sink = stack.enter_context(_compressing(sink, self.compression_level))
            yield sink

    @contextmanager
    def decrypting(self, reader: ByteReader, *, suffix: str) -> Iterator[ByteReader]:
        """Give a reader of what was encrypted; it never ends early without an error, and no thread outlives the block.

        Args:
            reader: Gives the encrypted bytes.
            suffix: What was done to them, one of `SUFFIXES`.

        Raises:
            WrongKeyError: Nothing at hand opens them; told by the first read at the latest.
        """
        with ExitStack() as stack:
            if suffix.endswith(_ENCRYPTED):
                reader = stack.enter_context(self._age_reader(reader))
            if suffix.startswith(_COMPRESSED):
                reader = DecompressingReader(reader)
            yield reader

    @contextmanager
    def _age_writer(self, sink: ObjectWriter) -> Iterator[ObjectWriter]:
        if self.passphrase is not None:
            by_passphrase = PassphraseWriter(sink, passphrase=self.passphrase)
            yield by_passphrase
            by_passphrase.finish()
            return
        if not self.recipients:
            raise ConfigError(
                "there is nobody to encrypt for: identities decrypt, and only recipients encrypt",
                hint="name at least one recipient, as age-keygen -y prints it",
            )
        writer = EncryptingWriter(sink, recipients=read_recipients(self.recipients))
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    @contextmanager
    def _age_reader(self, reader: ByteReader) -> Iterator[ByteReader]:
        source = PeekedReader(reader, _PEEK_BYTES)
        if is_for_passphrase(source.beginning):
            if self.passphrase is None:
                raise WrongKeyError(
                    "the object is encrypted with a passphrase, and none was given", hint="name the passphrase"
                )
            yield PassphraseReader(source, passphrase=self.passphrase)
            return
        if not self.identities:
            raise WrongKeyError(
                "object is encrypted: no key given",
                hint="name the file with the private key (identity)",
            )
        decrypting = DecryptingReader(source, identities=read_identities(self.identities))
        try:
            yield decrypting
        finally:
            decrypting.close()


@contextmanager
def _compressing(sink: ObjectWriter, level: int) -> Iterator[ObjectWriter]:
    writer = CompressingWriter(sink, level=level)
    yield writer
    writer.finish()
