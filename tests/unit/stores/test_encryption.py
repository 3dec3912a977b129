"""What is encrypted is opened to the same bytes, and nothing else is opened to anything."""

from __future__ import annotations

import gc
import io
import os
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, ObjectCorruptError, StoreError, StoreUnavailableError, WrongKeyError
from clusterguard.stores.encryption import SUFFIXES, Encryption, compression
from clusterguard.stores.encryption import passphrase as passphrase_module
from clusterguard.stores.encryption.compression import _LIBRARY, CompressingWriter, _zstd

PASSPHRASE = "correct horse battery staple"
MiB = 1 << 20


def new_keys():
    identity = pyrage.x25519.Identity.generate()
    return str(identity.to_public()), str(identity)


RECIPIENT, IDENTITY = new_keys()
BOTH = {"recipients": (RECIPIENT,), "identities": (IDENTITY,)}
ENCRYPTIONS = {
    "zstd and age": Encryption(**BOTH),
    "age": Encryption(**BOTH, compression_level=None),
    "zstd": Encryption(),
    "zstd and passphrase": Encryption(passphrase=PASSPHRASE),
    "passphrase": Encryption(passphrase=PASSPHRASE, compression_level=None),
}
every_encryption = pytest.mark.parametrize("encryption", ENCRYPTIONS.values(), ids=ENCRYPTIONS.keys())
ENCRYPTING = {name: encryption for name, encryption in ENCRYPTIONS.items() if encryption.encrypts}
only_encrypting = pytest.mark.parametrize("encryption", ENCRYPTING.values(), ids=ENCRYPTING.keys())


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    """256 MiB and a second for each are the point of scrypt, but not of these tests."""
    monkeypatch.setattr(passphrase_module, "_WORK_FACTOR", 4)


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert [each for each in threading.enumerate() if each not in before and "clusterguard-" in each.name] == []


def encrypted(encryption, *pieces):
    sink = io.BytesIO()
    with encryption.encrypting(sink) as writer:
        for piece in pieces:
            writer.write(piece)
    return sink.getvalue()


def opened(encryption, data, *, suffix=None, sizes=(MiB,)):
    found, turn = b"", 0
    with encryption.decrypting(io.BytesIO(data), suffix=encryption.suffix if suffix is None else suffix) as reader:
        while piece := reader.read(sizes[turn % len(sizes)]):
            assert len(piece) <= sizes[turn % len(sizes)]
            found += piece
            turn += 1
    return found


@contextmanager
def refused():
    with pytest.raises((ObjectCorruptError, WrongKeyError)) as raised:
        yield raised
    assert raised.value.hint


# Around the chunks of age (64 KiB) and the blocks of zstd (128 KiB) is where mistakes would be.
LENGTHS = st.one_of(
    st.integers(0, 300),
    st.sampled_from([0, 1, 65535, 65536, 65537, 131071, 131072, 131073, 196608, MiB, MiB + 1]),
)
pieces_of_any_size = st.lists(
    st.builds(lambda length, random: os.urandom(length) if random else bytes(length), LENGTHS, st.booleans()),
    max_size=5,
)


@every_encryption
@settings(max_examples=25, deadline=None)
@given(pieces=pieces_of_any_size, sizes=st.lists(st.sampled_from([1000, 65536, 65537, MiB]), min_size=1, max_size=3))
def test_opening_gives_what_was_encrypted_for_any_chunking(encryption, pieces, sizes):
    passphrase_module._WORK_FACTOR = 4
    assert opened(encryption, encrypted(encryption, *pieces), sizes=sizes) == b"".join(pieces)


PLAIN = b"".join(bytes([n % 256]) * 700 + os.urandom(300) for n in range(160))
cuts = st.integers(0, 10**9)


@every_encryption
@settings(max_examples=60, deadline=None)
@given(where=cuts)
def test_a_cut_anywhere_is_refused(encryption, where):
    data = ENCRYPTED[encryption]
    with refused():
        opened(encryption, data[: where % len(data)])


@every_encryption
@settings(max_examples=60, deadline=None)
@given(where=cuts, bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_never_gives_other_bytes(encryption, where, bit):
    data = bytearray(ENCRYPTED[encryption])
    data[where % len(data)] ^= 1 << bit
    try:
        found = opened(encryption, bytes(data))
    except (ObjectCorruptError, WrongKeyError):
        return
    # zstd's header has a window size that may be larger than needed; age authenticates every bit.
    assert not encryption.encrypts
    assert found == PLAIN


@only_encrypting
def test_every_bit_of_a_short_file_counts(encryption):
    """The header is text, in which one thing could be written in several ways."""
    data = encrypted(encryption, b"short")
    for where in range(len(data)):
        for bit in (1, 2):  # base64 may leave them unused in its last letter
            changed = bytearray(data)
            changed[where] ^= bit
            with refused():
                opened(encryption, bytes(changed))


@every_encryption
@settings(max_examples=30, deadline=None)
@given(tail=st.binary(min_size=1, max_size=100))
def test_bytes_after_the_end_are_refused(encryption, tail):
    with refused():
        opened(encryption, ENCRYPTED[encryption] + tail)


@every_encryption
def test_the_same_twice_in_a_row_is_refused(encryption):
    with refused():
        opened(encryption, ENCRYPTED[encryption] * 2)


passphrase_module._WORK_FACTOR = 4
ENCRYPTED = {encryption: encrypted(encryption, PLAIN) for encryption in ENCRYPTIONS.values()}
passphrase_module._WORK_FACTOR = 18


@every_encryption
def test_every_cut_at_a_chunk_of_age_is_refused(encryption):
    """There the bytes so far are all authenticated; only the mark of the last chunk is missing."""
    plain = os.urandom(4 * 65536)
    data = encrypted(encryption, plain)
    for chunks in range(1, 4):
        with refused():
            opened(encryption, data[: len(data) - chunks * (65536 + 16)])


@only_encrypting
def test_two_chunks_in_the_other_order_are_refused(encryption):
    data = encrypted(encryption, os.urandom(4 * 65536))
    chunk = 65536 + 16
    body = len(data) - 3 * chunk
    swapped = data[:body] + data[body + chunk : body + 2 * chunk] + data[body : body + chunk] + data[body + 2 * chunk :]
    assert len(swapped) == len(data)
    with refused():
        opened(encryption, swapped)


@every_encryption
@pytest.mark.parametrize("data", [b"", b"x", b"age-encryption.org/v1\n", b"hello, this is no such file" * 99])
def test_something_else_is_refused(encryption, data):
    with refused():
        opened(encryption, data)


class TestKeys:
    def test_another_identity_does_not_open(self):
        _, other = new_keys()
        with pytest.raises(WrongKeyError) as raised:
            opened(Encryption(identities=(other,)), encrypted(Encryption(**BOTH), b"x"), suffix=".zst.age")
        assert "identity" in raised.value.hint
        assert other not in f"{raised.value}{raised.value.hint}{raised.value.__cause__}"

    def test_one_of_several_identities_is_enough_and_so_is_one_of_several_recipients(self):
        (first, one), (second, other), (_, third) = new_keys(), new_keys(), new_keys()
        data = encrypted(Encryption(recipients=(first, second)), b"x")
        for identity in (one, other):
            assert opened(Encryption(identities=(third, identity)), data, suffix=".zst.age") == b"x"

    def test_recipients_alone_do_not_open(self):
        encryption = Encryption(recipients=(RECIPIENT,))
        assert not encryption.can_decrypt
        with pytest.raises(WrongKeyError, match="no key given") as raised:
            opened(encryption, encrypted(encryption, b"x"))
        assert "private key" in raised.value.hint

    def test_identities_alone_do_not_encrypt(self):
        """And nothing is written in plain instead."""
        sink = io.BytesIO()
        with (
            pytest.raises(ConfigError, match="nobody to encrypt for"),
            Encryption(identities=(IDENTITY,)).encrypting(sink),
        ):
            pass
        assert sink.getvalue() == b""

    def test_another_passphrase_does_not_open(self):
        with pytest.raises(WrongKeyError, match="another passphrase") as raised:
            opened(Encryption(passphrase="another one"), encrypted(Encryption(passphrase=PASSPHRASE), b"x"))
        assert PASSPHRASE not in f"{raised.value}{raised.value.hint}"
        assert "another one" not in f"{raised.value}{raised.value.hint}"

    def test_a_passphrase_does_not_open_what_is_for_keys_nor_keys_what_is_for_a_passphrase(self):
        with pytest.raises(WrongKeyError, match="no key given"):
            opened(Encryption(passphrase=PASSPHRASE), encrypted(Encryption(**BOTH), b"x"))
        with pytest.raises(WrongKeyError, match="with a passphrase"):
            opened(Encryption(**BOTH), encrypted(Encryption(passphrase=PASSPHRASE), b"x"))

    def test_a_forged_work_factor_takes_no_memory(self):
        data = encrypted(Encryption(passphrase=PASSPHRASE, compression_level=None), b"x").replace(b" 4\n", b" 30\n", 1)
        tracemalloc.start()
        with pytest.raises(ObjectCorruptError, match="work factor of 30"):
            opened(Encryption(passphrase=PASSPHRASE), data, suffix=".age")
        assert tracemalloc.get_traced_memory()[1] < MiB
        tracemalloc.stop()

    def test_an_empty_chunk_at_the_end_is_a_second_way_to_write_the_same_and_refused(self):
        sink = io.BytesIO()
        writer = passphrase_module.PassphraseWriter(sink, passphrase=PASSPHRASE)
        sink.write(writer._payload.encrypt(bytes(65536), last=False) + writer._payload.encrypt(b"", last=True))
        with pytest.raises(ObjectCorruptError):
            opened(Encryption(passphrase=PASSPHRASE), sink.getvalue(), suffix=".age")

    @pytest.mark.parametrize("kind", ["ed25519", "rsa"])
    def test_ssh_keys(self, kind):
        key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
        encryption = Encryption(recipients=(ssh_public(key),), identities=(ssh_private(key),))
        assert opened(encryption, encrypted(encryption, PLAIN)) == PLAIN

    def test_an_identity_file_may_hold_comments_and_several_keys(self):
        _, other = new_keys()
        text = f"# created: 2030-01-01\n# public key: {RECIPIENT}\n{other}\n\n{IDENTITY}\n"
        assert opened(Encryption(identities=(text,)), ENCRYPTED[ENCRYPTIONS["age"]], suffix=".age") == PLAIN


def ssh_public(key):
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def ssh_private(key):
    form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "seen"),
        [
            ({"recipients": ("age1nonsense",)}, "invalid recipient"),
            ({"recipients": ("age1yubikey1qwerty",)}, "invalid recipient"),
            ({"recipients": ("ssh-ecdsa AAAA",)}, "unknown type"),
            ({"recipients": ("someone@example.com",)}, "unknown type"),
            ({"recipients": ("",)}, "unknown type"),
            ({"recipients": (IDENTITY,)}, "private key found where"),
            ({"recipients": (IDENTITY.lower(),)}, "private key found where"),
            ({"recipients": ("-----BEGIN OPENSSH PRIVATE KEY-----",)}, "private key found where"),
            ({"identities": (RECIPIENT,)}, "neither age nor SSH"),
            ({"identities": ("",)}, "no key found"),
            ({"identities": ("# only a comment\n",)}, "no key found"),
            ({"identities": ("AGE-SECRET-KEY-1NONSENSE",)}, "neither age nor SSH"),
            ({"passphrase": ""}, "empty"),
            ({"passphrase": "x", "recipients": (RECIPIENT,)}, "exclude each other"),
            ({"passphrase": "x", "identities": (IDENTITY,)}, "exclude each other"),
            ({"compression_level": 0}, "compression level"),
            ({"compression_level": 22}, "compression level"),
        ],
    )
    def test_what_cannot_be_meant_is_refused_at_once(self, settings, seen):
        with pytest.raises(ConfigError, match=seen) as raised:
            Encryption(**settings)
        assert raised.value.hint
        told = f"{raised.value!r} {raised.value.hint} {raised.value.__cause__!r}"
        assert IDENTITY[16:].lower() not in told.lower()

    def test_no_secret_is_in_its_repr(self):
        assert IDENTITY not in repr(Encryption(**BOTH))
        assert RECIPIENT in repr(Encryption(**BOTH))
        assert PASSPHRASE not in repr(Encryption(passphrase=PASSPHRASE))

    def test_the_suffix_tells_what_was_done(self):
        assert [encryption.suffix for encryption in ENCRYPTIONS.values()] == [
            ".zst.age",
            ".age",
            ".zst",
            ".zst.age",
            ".age",
        ]
        assert Encryption(compression_level=None).suffix == ""
        assert {encryption.suffix for encryption in [*ENCRYPTIONS.values(), Encryption(compression_level=None)]} == set(
            SUFFIXES
        )

    @pytest.mark.parametrize(("library", "settings"), [("pyrage", BOTH), (_LIBRARY, {})])
    def test_without_the_extra_it_is_told_what_to_install(self, monkeypatch, library, settings):
        monkeypatch.setitem(__import__("sys").modules, library, None)
        with pytest.raises(ConfigError, match=library) as raised:
            Encryption(**settings)
        assert raised.value.hint == "pip install 'clusterguard[policy]'"


class _FullSink:
    """A store that takes so many bytes and no more."""

    def __init__(self, room):
        self.room = room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise StoreError("no room", hint="make some")


class _Breaking(io.BytesIO):
    """A source that breaks where its bytes end."""

    def read(self, size=-1):
        return super().read(size) or self._break()

    def _break(self):
        raise StoreUnavailableError("the connection broke", hint="try again")


class _Interrupted(Exception):  # noqa: N818 - it stands for anything that leaves the block
    pass


class TestFaults:
    @every_encryption
    @pytest.mark.parametrize("room", [0, 100, 3 * MiB])
    def test_a_full_store_is_told_as_it_told_it(self, encryption, room):
        with pytest.raises(StoreError, match="no room"), encryption.encrypting(_FullSink(room)) as writer:
            for _ in range(64):
                writer.write(os.urandom(MiB // 4))

    @every_encryption
    def test_a_store_that_is_full_only_at_the_end_is_told_too(self, encryption):
        """So little is written that all of it is still on its way when the block is left."""
        with pytest.raises(StoreError, match="no room"), encryption.encrypting(_FullSink(0)) as writer:
            writer.write(b"x")

    @only_encrypting
    def test_nobody_goes_on_writing_for_a_store_that_is_full(self, encryption):
        written = 0
        with pytest.raises(StoreError), encryption.encrypting(_FullSink(100)) as writer:
            for _ in range(200):
                writer.write(os.urandom(MiB // 4))
                written += 1
        assert written < 80

    @every_encryption
    def test_leaving_by_an_exception_ends_everything(self, encryption):
        sink = io.BytesIO()
        with pytest.raises(_Interrupted), encryption.encrypting(sink) as writer:
            writer.write(PLAIN)
            raise _Interrupted
        with refused():
            opened(encryption, sink.getvalue())

    @every_encryption
    @pytest.mark.parametrize("read", [0, 1, MiB])
    def test_a_reader_may_be_given_up(self, encryption, read):
        data = encrypted(encryption, os.urandom(12 * MiB))
        with encryption.decrypting(io.BytesIO(data), suffix=encryption.suffix) as reader:
            reader.read(read)

    @every_encryption
    def test_leaving_a_reader_by_an_exception_ends_everything(self, encryption):
        data = encrypted(encryption, os.urandom(12 * MiB))
        with pytest.raises(_Interrupted), encryption.decrypting(io.BytesIO(data), suffix=encryption.suffix) as reader:
            reader.read(5)
            raise _Interrupted

    @every_encryption
    @pytest.mark.parametrize("at", [10, 70_000])
    def test_a_source_that_breaks_is_told_as_it_told_it(self, encryption, at):
        data = encrypted(encryption, os.urandom(2 * MiB))
        with (
            pytest.raises(StoreUnavailableError, match="connection broke"),
            encryption.decrypting(_Breaking(data[:at]), suffix=encryption.suffix) as reader,
        ):
            while reader.read(1000):
                pass

    @every_encryption
    def test_no_more_is_read_at_a_time_than_memory_is_meant_for(self, encryption):
        class Asked(io.BytesIO):
            def read(self, size=-1):
                assert 0 < size <= MiB
                return super().read(size)

        with encryption.decrypting(Asked(ENCRYPTED[encryption]), suffix=encryption.suffix) as reader:
            assert b"".join(iter(lambda: reader.read(1000), b"")) == PLAIN

    @every_encryption
    def test_a_buffer_may_be_reused_at_once(self, encryption):
        sink, buffer = io.BytesIO(), bytearray(MiB)
        with encryption.encrypting(sink) as writer:
            for number in range(8):
                buffer[:] = bytes([number]) * MiB
                writer.write(memoryview(buffer))
            buffer[:] = b"\xff" * MiB
        assert opened(encryption, sink.getvalue()) == b"".join(bytes([n]) * MiB for n in range(8))


class _SingleThreaded:
    """zstd's library as it may be built: without threads."""

    def __init__(self):
        self.options = {}

    def __call__(self):
        return self

    @property
    def CompressionParameter(self):  # noqa: N802 - the library's name
        return SimpleNamespace(
            compression_level=_zstd().CompressionParameter.compression_level,
            checksum_flag=_zstd().CompressionParameter.checksum_flag,
            nb_workers=SimpleNamespace(bounds=lambda: (0, 0)),
        )

    def ZstdCompressor(self, options):  # noqa: N802
        self.options = options
        return _zstd().ZstdCompressor(options=options)


class TestCompressionInThreads:
    RUNS = b"".join(bytes([n % 251]) * 40_000 + os.urandom(25_000) for n in range(160))  # 10 MB: five runs

    def test_many_runs_are_one_whole_frame(self):
        data = encrypted(Encryption(), *(self.RUNS[at : at + MiB] for at in range(0, len(self.RUNS), MiB)))
        frame = _zstd().ZstdDecompressor()
        assert frame.decompress(data) == self.RUNS
        assert (frame.eof, frame.unused_data) == (True, b"")

    @pytest.mark.parametrize(("level", "threads"), [(1, 2), (3, 2), (9, 2), (10, 0), (19, 0)])
    def test_the_library_has_threads_where_they_are_small(self, level, threads):
        gc.collect()  # the threads of an earlier one end with it
        before = len(list(Path("/proc/self/task").iterdir()))
        writer = CompressingWriter(io.BytesIO(), level=level)
        writer.write(b"begin")
        assert len(list(Path("/proc/self/task").iterdir())) == before + threads
        writer.finish()

    def test_a_library_without_threads_compresses_too(self, monkeypatch):
        library = _SingleThreaded()
        monkeypatch.setattr(compression, "_zstd", library)
        data = encrypted(Encryption(), self.RUNS)
        assert set(library.options.values()) == {1, 3}
        assert _zstd().decompress(data) == self.RUNS


def frame(data, **options):
    """Compress as another program would, with parameters of zstd's own."""
    zstd = _zstd()
    return zstd.compress(data, options={zstd.CompressionParameter[name]: value for name, value in options.items()})


class TestOthers:
    """What other programs write."""

    @pytest.mark.parametrize(
        "options", [{}, {"compression_level": 19}, {"nb_workers": 2}, {"content_size_flag": 0}, {"window_log": 24}]
    )
    def test_zstd_frames_of_every_kind(self, options):
        data = frame(PLAIN, **options)
        assert opened(Encryption(), data) == PLAIN

    def test_a_frame_without_checksum_that_is_cut(self):
        data = frame(PLAIN, checksum_flag=0)
        for size in range(0, len(data), 1009):
            with refused():
                opened(Encryption(), data[:size])

    def test_zeros_do_not_fill_the_memory(self):
        """A few bytes stand for many: 400 MiB here are 38 KB."""
        data = frame(bytes(400 * MiB))
        assert len(data) < 100_000
        tracemalloc.start()
        with Encryption().decrypting(io.BytesIO(data), suffix=".zst") as reader:
            size = sum(map(len, iter(lambda: reader.read(MiB), b"")))
        assert size == 400 * MiB
        assert tracemalloc.get_traced_memory()[1] < 8 * MiB
        tracemalloc.stop()

    def test_pyrage_opens_our_passphrase_files_and_we_open_its(self):
        encryption = ENCRYPTIONS["passphrase"]
        assert pyrage.passphrase.decrypt(encrypted(encryption, PLAIN), PASSPHRASE) == PLAIN

    def test_pyrage_opens_our_files(self):
        assert pyrage.decrypt(ENCRYPTED[ENCRYPTIONS["age"]], [pyrage.x25519.Identity.from_str(IDENTITY)]) == PLAIN
        assert opened(ENCRYPTIONS["age"], pyrage.encrypt(PLAIN, [pyrage.x25519.Recipient.from_str(RECIPIENT)])) == PLAIN
