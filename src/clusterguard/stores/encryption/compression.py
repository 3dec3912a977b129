"""zstd in both directions, a piece at a time. The only user of zstandard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError, ObjectCorruptError

if TYPE_CHECKING:
    from clusterguard.stores.base import ByteReader, ObjectWriter

__all__ = ["CompressingWriter", "DecompressingReader", "check_level"]

_LEVELS: Final = range(1, 20)
_LONGEST_HEADER: Final = 18
_BLOCK_HEADER: Final = 3
_CHECKSUM: Final = 4
_REPEATED: Final = 1  # the block type that holds one byte, whatever its size says
_HINT: Final = "this copy is of no use: restore from another one, and check what stores it"


def check_level(level: int) -> None:
    """Refuse a level that does not exist, or whose memory no backup is worth.

    Raises:
        ConfigError: It is not from 1 to 19, or zstandard is not installed.
    """
    if level not in _LEVELS:
        raise ConfigError(
            f"{level} is no compression level", hint=f"{_LEVELS.start} (fast) to {_LEVELS.stop - 1} (small); 3 is usual"
        )
    _require_zstandard()


class CompressingWriter:
    """Compresses what is written into one zstd frame with a checksum.

    Args:
        sink: Gets the frame.
        level: Of compression, 1 to 19.
    """

    def __init__(self, sink: ObjectWriter, *, level: int) -> None:
        import zstandard

        self._sink = sink
        self._frame = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""
        self._pass_on(self._frame.compress(data))

    def finish(self) -> None:
        """End the frame."""
        self._pass_on(self._frame.flush())

    def _pass_on(self, made: bytes) -> None:
        if made:
            self._sink.write(made)


class DecompressingReader:
    """Reads what one zstd frame holds, and accepts nothing but one whole frame.

    The frame is taken block by block (RFC 8878, section 3.1.1): a block holds 128 KiB at most, so memory stays
    small even where a few bytes stand for gigabytes of zeros. The library judges the contents; the headers of the
    blocks are read here only to know how much to give it at a time.

    Args:
        source: Gives the frame.
    """

    def __init__(self, source: ByteReader) -> None:
        import zstandard

        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._library_error = zstandard.ZstdError
        self._unread = b""
        self._blocks = self._checksum = 0
        self._last = self._done = False
        self._ready = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end of a whole frame.

        Raises:
            ObjectCorruptError: The bytes are no frame, are cut, were changed, or are followed by others.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        while not self._ready and not self._done and size:
            self._ready = memoryview(self._next_block())
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def _next_block(self) -> bytes:
        if self._last:
            self._require_end()
            return b""
        start = b"" if self._blocks else self._frame_header()
        header = self._exactly(_BLOCK_HEADER)
        fields = int.from_bytes(header, "little")
        self._last = bool(fields & 1)
        stored = 1 if fields >> 1 & 3 == _REPEATED else fields >> 3
        self._blocks += 1
        return self._decompress(start + header + self._exactly(stored + (self._checksum if self._last else 0)))

    def _frame_header(self) -> bytes:
        import zstandard

        begun = self._exactly(_LONGEST_HEADER, at_least=5)
        try:
            size = zstandard.frame_header_size(begun)
            if zstandard.get_frame_parameters(begun).has_checksum:
                self._checksum = _CHECKSUM
        except self._library_error as error:
            raise ObjectCorruptError(f"the bytes are not compressed by zstd: {error}", hint=_HINT) from error
        self._unread = begun[size:] + self._unread
        return begun[:size]

    def _decompress(self, block: bytes) -> bytes:
        try:
            return self._frame.decompress(block)
        except self._library_error as error:
            raise ObjectCorruptError(f"the compressed bytes were changed: {error}", hint=_HINT) from error

    def _require_end(self) -> None:
        if not self._frame.eof:
            raise ObjectCorruptError("the compressed bytes do not end where they should", hint=_HINT)
        if self._unread or self._source.read(1):
            raise ObjectCorruptError("bytes follow the end of the compressed ones", hint=_HINT)
        self._done = True

    def _exactly(self, size: int, *, at_least: int | None = None) -> bytes:
        while len(self._unread) < size and (piece := self._source.read(max(size - len(self._unread), 1 << 17))):
            self._unread += piece
        if len(self._unread) < (size if at_least is None else at_least):
            raise ObjectCorruptError("the compressed bytes are cut", hint=_HINT)
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken


def _require_zstandard() -> None:
    from clusterguard.stores.encryption.extra import require

    require("zstandard", purpose="compression")
