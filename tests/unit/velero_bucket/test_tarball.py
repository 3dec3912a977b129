"""The tarball: read as a stream, whole or not at all, whatever it is made of."""

import gzip
import io
import json
import tarfile
import tracemalloc
import zlib

import pytest
from backup_builder import CONTENTS, NAME, NOW, BackupBuilder, paths, put, tar, thing
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterguard.errors import BackupCorruptError
from clusterguard.velero.bucket import objects_in_backup, verify_backup
from clusterguard.velero.layout import parse_item_path, plural_of
from clusterguard.velero.tarball import (
    Inspection,
    Limits,
    inflated,
    members,
    read_document,
)

LIMITS = Limits()
WHOLE = BackupBuilder().files()[CONTENTS]
FILES = BackupBuilder().files()


def read(packed, limits=LIMITS):
    """Return what is in a packed tarball."""
    return list(members(inflated(io.BytesIO(packed), limits=limits, most_bytes=limits.total_bytes), limits=limits))


def read_tar(data, limits=LIMITS):
    return list(members(iter([data]), limits=limits))


def refused(entries, **options):
    with pytest.raises(BackupCorruptError) as error:
        read_tar(tar(entries, **options))
    return error.value.message


def special(path, kind, target=""):
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, target
    return info


# ---- what is in it ---------------------------------------------------------------------------------------


def test_the_members_are_those_that_the_standard_library_reads():
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as archive:
        expected = [(info.name, archive.extractfile(info).read()) for info in archive]
    assert [tuple(member) for member in read(WHOLE)] == expected


@given(
    names=st.lists(
        st.text("abcñ日x-.", min_size=1, max_size=120).filter(lambda name: name not in {".", ".."}), max_size=8
    ),
    data=st.binary(max_size=1500),
    cut=st.integers(1, 700),
)
def test_names_and_contents_of_any_length_come_back_however_the_bytes_are_cut(names, data, cut):
    entries = [(f"resources/x/{'folder/' * (number % 30)}{name}", data[number:]) for number, name in enumerate(names)]
    packed = tar(entries)
    pieces = [packed[at : at + cut] for at in range(0, len(packed), cut)]
    assert [tuple(member) for member in members(pieces, limits=LIMITS)] == entries


def test_plain_ustar_headers_are_read_too():
    path = "resources/" + "a" * 90 + "/" + "b" * 90
    assert read_tar(tar([(path, b"x")], form=tarfile.USTAR_FORMAT)) == [(path, b"x")]


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (special("a", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (special("a", tarfile.LNKTYPE, "b"), "a hard link"),
        (special("a", tarfile.CHRTYPE), "a character device"),
        (special("a", tarfile.BLKTYPE), "a block device"),
        (special("a", tarfile.FIFOTYPE), "a named pipe"),
        (special("a", tarfile.DIRTYPE), "a directory"),
    ],
)
def test_whatever_is_no_file_is_refused(entry, reason):
    assert reason in refused([(entry, b"")])


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "a/..", "..", ".", "/etc/passwd", "a//b", "./a", "a/./b", "a/", "", "a/\0../b"]
)
def test_paths_that_lead_elsewhere_are_refused(path):
    header = bytearray(tar([("placeholder", b"")])[:512])
    header[:100] = path.encode().ljust(100, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BackupCorruptError, match="leads out of the tarball"):
        read_tar(bytes(header) + bytes(1024))


@pytest.mark.parametrize("path", ["../" + "a" * 150, "/" + "é" * 120])
def test_long_paths_that_lead_elsewhere_are_refused_too(path):
    assert "leads out of the tarball" in refused([(path, b"")])


def test_a_name_that_is_no_utf8_is_refused():
    header = bytearray(tar([("placeholder", b"")])[:512])
    header[:1] = b"\xff"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BackupCorruptError, match="UTF-8"):
        read_tar(bytes(header) + bytes(1024))


def test_a_tarball_of_another_format_is_refused():
    assert "file header" in refused([("a", b"")], form=tarfile.GNU_FORMAT)


@pytest.mark.parametrize("keyword", ["size", "linkpath", "GNU.sparse.name", "hdrcharset"])
def test_pax_headers_that_change_what_follows_are_refused(keyword):
    info = tarfile.TarInfo("a")
    info.pax_headers = {keyword: "1"}
    assert "which Velero does not" in refused([(info, b"")])


@pytest.mark.parametrize(
    "records",
    [b"x", b"99 path=a\n", b"0 path=a\n", b"9 path=a\nx", b"8 patha\n\n", b"9" * 5000 + b" path=a\n", b"\0" * 9],
)
def test_damaged_pax_headers_are_refused(records):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    block = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0")
    with pytest.raises(BackupCorruptError, match=r"damaged|bytes"):
        read_tar(block + tar([("a", b"")]))


def test_a_header_that_does_not_match_its_checksum_is_refused():
    data = bytearray(tar([("a", b"x")]))
    data[0] ^= 1
    with pytest.raises(BackupCorruptError) as caught:
        read_tar(bytes(data))
    assert caught.value.fields == {"defect": "file-header", "byte": 0}


@pytest.mark.parametrize("size", [b"-0000000001\0", b"0000000_001\0", b"\x80" + b"\0" * 10 + b"\x01", b"00000000009\0"])
def test_sizes_that_are_no_octal_numbers_are_refused(size):
    header = bytearray(tar([("a", b"")])[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BackupCorruptError) as caught:
        read_tar(bytes(header) + bytes(1024))
    assert caught.value.fields["defect"] == "file-header"


def test_anything_behind_the_end_is_refused():
    whole = tar([("a", b"x")]).rstrip(b"\0")
    whole = whole.ljust(-(-len(whole) // 512) * 512, b"\0")
    assert read_tar(whole + bytes(1024)) == [("a", b"x")]
    assert read_tar(whole + bytes(10240)) == [("a", b"x")]
    for end in (bytes(1024) + b"x", bytes(1024) + tar([("b", b"y")]), bytes(512), bytes(1000), b""):
        with pytest.raises(BackupCorruptError, match=r"cut off|follow the end"):
            read_tar(whole + end)


@pytest.mark.parametrize("more", [b"x", b"\0", gzip.compress(b"x", mtime=0), WHOLE])
def test_anything_behind_the_gzip_stream_is_refused(more):
    with pytest.raises(BackupCorruptError) as caught:
        read(WHOLE + more)
    assert caught.value.fields == {"defect": "trailing-bytes"}


def test_a_wrong_checksum_or_length_at_the_end_is_refused():
    for place in (-5, -1):
        data = bytearray(WHOLE)
        data[place] ^= 1
        with pytest.raises(BackupCorruptError, match=r"incorrect (data|length) check"):
            read(bytes(data))


@pytest.mark.parametrize("data", [b"", b"\x1f", b"plain text", tar([("a", b"")]), zlib.compress(b"x")])
def test_what_is_no_gzip_stream_is_refused(data):
    with pytest.raises(BackupCorruptError):
        read(data)


# ---- laws ------------------------------------------------------------------------------------------------


def verified(tarball):
    builder = BackupBuilder()
    builder.raw[CONTENTS] = tarball
    return verify_backup(builder.store(), NAME, now=NOW)


def test_a_tarball_cut_off_at_any_byte_is_found():
    for end in range(len(WHOLE)):
        with pytest.raises(BackupCorruptError):
            read(WHOLE[:end])
    assert not verified(WHOLE[:-1]).ok


@given(end=st.integers(0, len(gzip.decompress(WHOLE)) - 10240))
def test_a_tarball_that_was_cut_off_before_it_was_packed_is_found(end):
    cut = gzip.compress(gzip.decompress(WHOLE)[:end])
    with pytest.raises(BackupCorruptError):
        read(cut)


@settings(max_examples=400)
@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(place, bit):
    # No checksum covers the time in gzip's own header, nor are all bits of a deflate stream in use.
    damaged = bytearray(WHOLE)
    damaged[place] ^= 1 << bit
    report = verified(bytes(damaged))
    assert not report.ok or read(bytes(damaged)) == read(WHOLE)


@settings(max_examples=200)
@given(data=st.data())
def test_any_damage_of_any_file_gives_a_report_and_no_crash(data):
    key = data.draw(st.sampled_from(sorted(FILES)))
    place = data.draw(st.integers(0, len(FILES[key]) - 1))
    damaged = bytearray(FILES[key])
    damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    store = BackupBuilder().store(**{key: bytes(damaged)})
    report = verify_backup(store, NAME, now=NOW)
    if key == CONTENTS:
        assert not report.ok or read(bytes(damaged)) == read(WHOLE)


@settings(max_examples=200)
@given(data=st.binary(max_size=3000))
def test_bytes_that_are_no_tarball_are_refused_and_never_crash(data):
    with pytest.raises(BackupCorruptError):
        read_tar(data)
    with pytest.raises(BackupCorruptError):
        read(data)


# ---- bombs -----------------------------------------------------------------------------------------------


class Counting(io.BytesIO):
    taken = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.fixture(scope="module")
def bomb():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(512)), packer.flush()])


def test_a_compression_bomb_is_refused_long_before_its_end(bomb):
    stream = Counting(bomb)
    made = 0
    with pytest.raises(BackupCorruptError, match="compression bomb"):
        for piece in inflated(stream, limits=LIMITS, most_bytes=LIMITS.total_bytes):
            made += len(piece)
            assert len(piece) <= 1 << 20
    assert made <= 65 << 20


def test_a_bomb_in_place_of_any_file_is_a_finding_within_bounded_memory(bomb):
    builder = BackupBuilder()
    for key in builder.documents:
        builder.raw[key] = bomb
    builder.raw[CONTENTS] = bomb
    store = builder.store()
    tracemalloc.start()
    try:
        report = verify_backup(store, NAME, now=NOW, limits=Limits(document_bytes=8 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len([check for check in report.checks if check.ok is False]) == 7
    assert peak < 40 << 20


def test_limits_hold():
    many = [(f"file-{number}", b"x") for number in range(20)]
    with pytest.raises(BackupCorruptError, match="more than 10 files"):
        read_tar(tar(many), Limits(members=10))
    with pytest.raises(BackupCorruptError) as caught:
        read_tar(tar([("a", bytes(101))]), Limits(member_bytes=100))
    assert caught.value.fields == {"defect": "too-large", "size": 101, "limit": 100}
    with pytest.raises(BackupCorruptError, match="more than 100 bytes"):
        read(gzip.compress(tar([("a", b"x")])), Limits(total_bytes=100))
    with pytest.raises(BackupCorruptError, match="more than 100 bytes"):
        read_document(io.BytesIO(gzip.compress(b" " * 101)), limits=Limits(document_bytes=100))
    with pytest.raises(BackupCorruptError, match="more than 100 bytes"):
        read_document(io.BytesIO(b" " * 101), limits=Limits(document_bytes=100), packed=False)


def test_a_size_that_is_only_claimed_is_refused_before_anything_is_read():
    info = tarfile.TarInfo("a")
    info.size = 1 << 32
    with pytest.raises(BackupCorruptError) as caught:
        read_tar(info.tobuf(tarfile.USTAR_FORMAT))
    assert (caught.value.fields["defect"], caught.value.fields["size"]) == ("too-large", 1 << 32)


# ---- objects ---------------------------------------------------------------------------------------------


def test_each_object_comes_once_without_bookkeeping():
    builder = BackupBuilder()
    found = dict(objects_in_backup(builder.store(), NAME))
    assert {str(ref) for ref in found} == {
        "Namespace shop",
        "ConfigMap shop/settings",
        "Secret shop/login",
        "Deployment.apps shop/web",
        "ClusterRole.rbac.authorization.k8s.io a:b",
        "Mouse.example.com shop/jerry",
        "CustomResourceDefinition.apiextensions.k8s.io mice.example.com",
    }
    settings_ = next(data for ref, data in found.items() if ref.kind == "ConfigMap")
    assert settings_ == (
        b'{"apiVersion":"v1","data":{"color":"blue"},"kind":"ConfigMap",'
        b'"metadata":{"name":"settings","namespace":"shop","uid":"uid-of-settings"}}'
    )


def test_objects_of_a_damaged_backup_are_an_error_at_the_latest_when_they_end():
    builder = BackupBuilder()
    builder.replace("resources/configmaps/namespaces/shop/settings.json", b"{}")
    with pytest.raises(BackupCorruptError) as caught:
        list(objects_in_backup(builder.store(), NAME))
    assert (caught.value.fields["defects"], caught.value.fields["first"]) == (2, "configmaps shop/settings")
    store = BackupBuilder().store()
    put(store, CONTENTS, WHOLE[:-1])
    with pytest.raises(BackupCorruptError) as caught:
        list(objects_in_backup(store, NAME))
    assert caught.value.fields == {"key": CONTENTS, "defect": "cut-off"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("resources/pods/namespaces/shop/web.json", ("pods", "", False, "shop", "web")),
        ("resources/pods/v1-preferredversion/namespaces/shop/web.json", ("pods", "v1", True, "shop", "web")),
        ("resources/pods/namespaces/cluster/web.json", ("pods", "", False, "cluster", "web")),
        ("resources/pods/v1/namespaces/cluster/web.json", ("pods", "v1", False, "cluster", "web")),
        ("resources/nodes/cluster/namespaces.json", ("nodes", "", False, "", "namespaces")),
        ("resources/nodes/v1/cluster/a.b.json", ("nodes", "v1", False, "", "a.b")),
        ("resources/namespaces/cluster/namespaces.json", ("namespaces", "", False, "", "namespaces")),
        ("resources/namespaces/v1-preferredversion/cluster/x.json", ("namespaces", "v1", True, "", "x")),
        ("resources/pods/namespaces/shop/web.yaml", None),
        ("resources/pods/shop/web.json", None),
        ("resources/web.json", None),
        ("resources/pods/v1/v1/namespaces/shop/web.json", None),
        ("metadata/version", None),
        ("other/pods/namespaces/shop/web.json", None),
    ],
)
def test_paths_are_read_as_velero_builds_them(path, expected):
    found = parse_item_path(path)
    assert found is None if expected is None else tuple(found) == expected


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Pod", "pods"),
        ("Endpoints", "endpoints"),
        ("NetworkPolicy", "networkpolicies"),
        ("Ingress", "ingresses"),
        ("StorageClass", "storageclasses"),
        ("EndpointSlice", "endpointslices"),
        ("CSINode", "csinodes"),
        ("VolumeAttachment", "volumeattachments"),
    ],
)
def test_plurals_of_kubernetes_own_kinds(kind, plural):
    assert plural_of(kind) == plural


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_the_objects():
    def peak_of(count, size):
        objects = [
            ("configmaps", thing("ConfigMap", f"n-{number}", data={"d": f"{number}-" * size}))
            for number in range(count)
        ]
        packed = gzip.compress(tar([("metadata/version", b"1.1.0\n"), *_both(objects)]), 1)
        tracemalloc.start()
        try:
            inspection = Inspection(limits=LIMITS)
            pieces = inflated(io.BytesIO(packed), limits=LIMITS, most_bytes=LIMITS.total_bytes)
            assert sum(1 for _ in inspection.objects(pieces)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak_of(10_000, 10)
    assert few < 20 << 20
    assert peak_of(10_000, 1000) < few + (8 << 20)


def _both(objects):
    for resource, item in objects:
        data = json.dumps(item).encode()
        yield from ((path, data) for path in paths(resource, item))
