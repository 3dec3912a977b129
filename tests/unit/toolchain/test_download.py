from __future__ import annotations

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterguard.errors import ChecksumMismatchError, ToolchainError
from clusterguard.retrying import RetryPolicy
from clusterguard.toolchain.download import Downloader, DownloadError
from endless_server import Jumping, endless_server

from .conftest import publish

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def waits():
    return []


@pytest.fixture
def downloader(site, told, waits):
    return Downloader(progress=told, mirror=site.address, policy=RetryPolicy(sleep=waits.append))


@pytest.fixture
def asset(site):
    return publish(site, "kwok", CONTENT, {"kwok": ""})


def ranges(site):
    return [asked for _, asked in site.requests]


def test_a_download_is_complete_and_its_bytes_are_told(downloader, asset, tmp_path, told):
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert told[-1].task == "downloading kwok"
    assert told[-1].finished
    assert told[-1].done == told[-1].total == len(CONTENT)
    assert sum(moment.finished for moment in told) == 1


def test_a_cut_transfer_goes_on_where_it_was_cut(downloader, asset, site, tmp_path, waits):
    site.cuts = [300_000, 400_000]
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    first, *later = ranges(site)
    assert not first
    second, third = (int(asked.removeprefix("bytes=").rstrip("-")) for asked in later)
    at_most_lost = 1 << 16
    assert 300_000 - at_most_lost < second <= 300_000
    assert second + 400_000 - at_most_lost < third <= second + 400_000
    assert len(waits) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=3))  # the policy allows four attempts
def test_wherever_it_is_cut_the_file_is_whole_in_the_end(downloader, asset, site, tmp_path, cuts):
    site.cuts = list(cuts)
    part = tmp_path / "part"
    downloader.fetch(asset, part)
    assert part.read_bytes() == CONTENT
    part.unlink()


def test_what_an_earlier_run_left_is_kept(downloader, asset, site, tmp_path):
    (tmp_path / "part").write_bytes(CONTENT[:50_000])
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert ranges(site) == ["bytes=50000-"]


def test_a_part_that_is_whole_already_is_not_fetched_again(downloader, asset, site, tmp_path):
    (tmp_path / "part").write_bytes(CONTENT)
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert ranges(site) == [f"bytes={len(CONTENT)}-"]


def test_a_site_without_ranges_starts_over(downloader, asset, site, tmp_path):
    site.knows_ranges = False
    (tmp_path / "part").write_bytes(CONTENT[:50_000])
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_spoilt_part_is_not_the_sites_fault(downloader, asset, site, tmp_path):
    (tmp_path / "part").write_bytes(b"\0" * 50_000)
    downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert ranges(site) == ["bytes=50000-", ""]


def test_wrong_bytes_are_refused_and_discarded(downloader, asset, site, tmp_path):
    site.files["/releases.example/kwok"] = CONTENT[:-1] + b"!"
    with pytest.raises(ChecksumMismatchError) as caught:
        downloader.fetch(asset, tmp_path / "part")
    assert caught.value.fields["pinned"] == asset.sha256 != caught.value.fields["computed"]
    assert not (tmp_path / "part").exists()


def test_a_transfer_that_trickles_is_cut_and_goes_on(site, told, waits, asset, tmp_path):
    """A byte now and then is no silence, and so no limit on silence ever ends it."""
    with endless_server(piece=b"x") as address:
        policy = RetryPolicy(attempts=2, sleep=waits.append)
        clock = Jumping(1000)
        downloader = Downloader(progress=told, mirror=address, policy=policy, whole_seconds=3600, clock=clock)
        with pytest.raises(DownloadError, match="cut after"):
            downloader.fetch(asset, tmp_path / "part")
    assert len(waits) == 1


def test_a_file_that_does_not_end_does_not_fill_the_disk(told, asset, tmp_path, monkeypatch):
    monkeypatch.setattr("clusterguard.toolchain.download._MOST_BYTES", 1_000_000)
    with endless_server(piece=b"x" * 65_536, pause=0) as address:
        downloader = Downloader(progress=told, mirror=address)
        with pytest.raises(DownloadError):
            downloader.fetch(asset, tmp_path / "part")
    assert (tmp_path / "part").stat().st_size <= 1_000_000


def test_the_text_of_a_redirect_is_not_read(told, asset, tmp_path):
    with endless_server(status=302, headers=[("Location", "/end")]) as address:
        downloader = Downloader(progress=told, mirror=address)
        with pytest.raises(ChecksumMismatchError):  # it did follow, and got the two bytes that are there
            downloader.fetch(asset, tmp_path / "part")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_site_is_asked_again_and_then_given_up(downloader, asset, site, tmp_path, status):
    site.status = status
    with pytest.raises(DownloadError, match=str(status)):
        downloader.fetch(asset, tmp_path / "part")
    assert len(site.requests) == 4


def test_a_site_that_forbids_is_asked_once_for_all_its_files(downloader, asset, site, tmp_path, waits):
    site.status = 403
    for _ in range(2):
        with pytest.raises(DownloadError, match="answered 403"):
            downloader.fetch(asset, tmp_path / "part")
    assert len(site.requests) == 1
    assert not waits


def test_a_missing_file_says_nothing_about_the_sites_other_files(downloader, asset, site, tmp_path):
    del site.files["/releases.example/kwok"]
    with pytest.raises(DownloadError, match="answered 404"):
        downloader.fetch(asset, tmp_path / "part")
    downloader.fetch(publish(site, "kind", CONTENT, {"kind": ""}), tmp_path / "part")


def test_a_refused_connection_is_told_in_few_words_and_not_retried(asset, told, tmp_path, waits):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        downloader = Downloader(
            progress=told, mirror=f"http://127.0.0.1:{port}", policy=RetryPolicy(sleep=waits.append)
        )
        with pytest.raises(DownloadError) as caught:
            downloader.fetch(asset, tmp_path / "part")
        assert caught.value.code == "site-unreachable"
        assert caught.value.message.startswith(f"127.0.0.1:{port} ")
        assert "Connection refused" in caught.value.message
    assert not waits


def test_a_silent_site_is_given_up(asset, told, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        downloader = Downloader(progress=told, mirror=address, read_seconds=0.05)
        with pytest.raises(DownloadError, match="did not answer in time"):
            downloader.fetch(asset, tmp_path / "part")


def test_a_site_that_does_not_speak_tls_is_given_up(asset, site, told, tmp_path):
    downloader = Downloader(progress=told, mirror=site.address.replace("http:", "https:"))
    with pytest.raises(DownloadError, match="cannot be reached"):
        downloader.fetch(asset, tmp_path / "part")


def test_a_disk_that_cannot_be_written_is_not_blamed_on_the_site(downloader, asset, tmp_path):
    with pytest.raises(ToolchainError, match="cannot be written") as caught:
        downloader.fetch(asset, tmp_path / "missing" / "part")
    assert not isinstance(caught.value, DownloadError)
