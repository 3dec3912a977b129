"""zstd in both directions, a piece at a time. The only user of zstd's library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ConfigError, ObjectCorruptError
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.encryption.extra import require

if TYPE_CHECKING:
    from clusterguard.stores.base import ByteReader, ObjectWriter

__all__ = ["CompressingWriter", "DecompressingReader", "check_level"]

_LEVELS: Final = range(1, 20)
_INPUT_BYTES: Final = 1 << 17  # a frame's largest block
_THREADS: Final = 2
_THREADED_LEVELS: Final = range(1, 10)  # each thread of a higher one takes up to 100 MiB
_RUN_BYTES: Final = 2 << 20  # what a thread compresses at a time
_LIBRARY: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_HINT: Final = "restore from another copy, and check the disk or server below this store"


def check_level(level: int) -> None:
    """Refuse a level that does not exist, or whose memory no backup is worth.

    Raises:
        ConfigError: It is not from 1 to 19, or the library is not installed.
    """
    if level not in _LEVELS:
        raise ConfigError(
            f"{level} is not a valid compression level",
            hint=f"{_LEVELS.start} (fast) to {_LEVELS.stop - 1} (small); 3 is usual",
        )
    _zstd()


class CompressingWriter:
    """Compresses what is written into one zstd frame with a checksum.

    Up to level 9 that is done by two threads of the library's own, which take 20 MiB at level 3 and 40 at 9; whoever
    writes waits only while both are busy and more lies before them. At higher levels, and where the library was built
    without threads, whoever writes compresses.

    Args:
        sink: Gets the frame.
        level: Of compression, 1 to 19.
    """

    def __init__(self, sink: ObjectWriter, *, level: int) -> None:
        zstd = _zstd()
        parameter = zstd.CompressionParameter
        self._sink = sink
        options = {parameter.compression_level: level, parameter.checksum_flag: 1}
        threads = min(_THREADS, parameter.nb_workers.bounds()[1])
        if threads and level in _THREADED_LEVELS:
            options |= {parameter.nb_workers: threads, parameter.job_size: _RUN_BYTES}
        self._frame = zstd.ZstdCompressor(options=options)

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

    No more is decompressed than is asked for, so memory stays small even where a few bytes stand for gigabytes of
    zeros.

    Args:
        source: Gives the frame.
    """

    def __init__(self, source: ByteReader) -> None:
        zstd = _zstd()
        self._source = source
        self._frame = zstd.ZstdDecompressor()
        self._library_error = zstd.ZstdError

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end of a whole frame.

        Raises:
            ObjectCorruptError: The bytes are no frame, are cut, were changed, or are followed by others.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        piece = b""
        while size and not piece and not self._frame.eof:
            piece = self._decompressed(size)
        if not piece and size:
            self._require_end()
        return piece

    def _decompressed(self, size: int) -> bytes:
        more = self._source.read(_INPUT_BYTES) if self._frame.needs_input else b""
        if self._frame.needs_input and not more:
            raise ObjectCorruptError("compressed object is truncated", hint=_HINT)
        try:
            piece: bytes = self._frame.decompress(more, max_length=size)
        except self._library_error as error:
            raise ObjectCorruptError(f"the bytes are not a whole frame of zstd: {error}", hint=_HINT) from error
        return piece

    def _require_end(self) -> None:
        if self._frame.unused_data or self._source.read(1):
            raise ObjectCorruptError("compressed object is followed by other bytes", hint=_HINT)


def _zstd() -> Any:  # noqa: ANN401 - one of two modules, by the version of Python
    return require(_LIBRARY, purpose="compression")
