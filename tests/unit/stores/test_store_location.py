from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError
from clusterguard.stores import LocalStore, MemoryStore, open_store


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/var/backups", "file:///var/backups"),
        ("/var/back ups#1", "file:///var/back%20ups%231"),
        ("/var/../srv/./x/", "file:///srv/x"),
        (Path("/var/backups"), "file:///var/backups"),
        ("file:///var/back%20ups", "file:///var/back%20ups"),
        ("file://localhost/var", "file:///var"),
        ("FILE:///var", "file:///var"),
    ],
)
def test_directories(location, url):
    store = open_store(location)
    assert isinstance(store, LocalStore)
    assert store.url == url


@pytest.mark.parametrize("location", ["./backups", "../here/backups", Path("backups"), "~/here/backups"])
def test_relative_directories_start_where_we_are(location, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store(location).url == f"file://{tmp_path}/here/backups"


def test_memory_is_new_and_empty_each_time():
    first, second = open_store("memory:"), open_store("memory:")
    assert isinstance(first, MemoryStore)
    with first.put("a"):
        pass
    assert list(second.list()) == []


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a%20b", "s3://bucket/a%20b"),
        ("s3://bucket?checksum=crc32", "s3://bucket?checksum=CRC32"),
        ("s3://bucket?sse=aws:kms&sseKey=alias/backups", "s3://bucket?sse=aws:kms&sseKey=alias/backups"),
        (
            "s3://bucket/p?pathStyle=TRUE&endpoint=https://s3.example.com:9000&checksum=sha256",
            "s3://bucket/p?endpoint=https://s3.example.com:9000&pathStyle=true&checksum=SHA256",
        ),
        (
            "s3://bucket?region=eu-west-1&profile=dr&ca=/etc/ca.pem",
            "s3://bucket?region=eu-west-1&ca=/etc/ca.pem&profile=dr",
        ),
    ],
)
def test_buckets(location, url):
    store = open_store(location)
    assert type(store).__name__ == "S3Store"
    assert store.url == url
    assert open_store(store.url).url == url


_WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(prefix=st.lists(_WORDS.filter(lambda w: "/" not in w), max_size=3), profile=_WORDS, region=_WORDS)
def test_every_url_opens_the_store_it_is_of(prefix, profile, region):
    from clusterguard.stores import S3Store

    store = S3Store(bucket="bucket", prefix="/".join(prefix), profile=profile, region=region, path_style=True)
    again = open_store(store.url)
    assert again.url == store.url
    assert (again.prefix, again.profile, again.region) == (store.prefix, profile, region)


@given(path=st.lists(_WORDS.filter(lambda w: "/" not in w), min_size=1, max_size=3))
def test_every_directory_has_a_url_that_opens_it(path):
    store = LocalStore("/" + "/".join(path))
    assert open_store(store.url)._root == store._root


@pytest.mark.parametrize(
    ("location", "seen", "hint"),
    [
        ("backups", "not a valid store", "./backups"),
        ("", "not a valid store", "./"),
        ("s4://bucket", "s4", "did you mean s3:"),
        ("fiel:///x", "fiel", "did you mean file:"),
        ("gs://bucket", "gs", "did you mean"),
        ("http://example.com/bucket", "not a valid store", None),
        ("file://var/backups", "not an absolute path", "three slashes"),
        ("file:relative", "not an absolute path", "three slashes"),
        ("file:///x?y=z", "no parameters", "%3F"),
        ("memory:name", "no name", "memory:"),
        ("s3:bucket", "no bucket", "s3://bucket/prefix"),
        ("s3:///prefix", "no bucket", "s3://bucket/prefix"),
        ("s3://localhost:9000/bucket", "a host and a port", "endpoint="),
        ("s3://bucket#x", "#", "%23"),
        ("s3://bucket?pathstyle=true", "'pathstyle'", "did you mean pathStyle?"),
        ("s3://bucket?path_style=true", "'path_style'", "did you mean pathStyle?"),
        ("s3://bucket?endpont=https://x", "'endpont'", "did you mean endpoint?"),
        ("s3://bucket?s3ForcePathStyle=true", "'s3ForcePathStyle'", "pathStyle"),
        ("s3://bucket?zzz=1", "'zzz'", "endpoint, region, pathStyle, ca, profile, checksum, sse, sseKey"),
        ("s3://bucket?region=a&region=b", "given twice", "keep one"),
        ("s3://bucket?region=", "region=", "leave region out"),
        ("s3://bucket?region", "name=value", "region="),
        ("s3://bucket?pathStyle=yes", "pathStyle=yes", "true, false"),
        ("s3://bucket?checksum=md5", "checksum=md5", "CRC32, SHA256, when_required"),
        ("s3://bucket?endpoint=s3.example.com", "not the URL of a server", "https://host:port"),
        ("s3://bucket?endpoint=https://x?y", "not the URL of a server", "https://host:port"),
        ("s3://[bucket", "not a valid store", "write it like"),
    ],
)
def test_wrong_locations_say_what_is_wrong_and_what_was_meant(location, seen, hint):
    with pytest.raises(ConfigError) as raised:
        open_store(location)
    assert seen in raised.value.message
    if hint is None:
        assert raised.value.hint is None
    else:
        assert hint in raised.value.hint


@pytest.mark.parametrize(
    "location",
    [
        "s3://AKIAEXAMPLE:hunter2@bucket/prefix",
        "s3://hunter2@bucket",
        "file://user:hunter2@host/x",
        "s3://bucket?endpoint=https://user:hunter2@s3.example.com",
        "s3://bucket?secretKey=hunter2",
        "s3://bucket?hunter2",
    ],
)
def test_secrets_in_a_location_are_refused_and_not_repeated(location):
    with pytest.raises(ConfigError) as raised:
        open_store(location)
    assert "hunter2" not in f"{raised.value.message} {raised.value.hint}"


def test_a_directory_is_opened_without_boto3():
    script = (
        "import sys\n"
        "from clusterguard.stores import open_store\n"
        "open_store('/x'), open_store('memory:')\n"
        "print(sorted({'boto3', 'botocore', 'urllib3', 'requests'} & set(sys.modules)))\n"
        "open_store('s3://bucket-x')\n"
        "assert 'boto3' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
