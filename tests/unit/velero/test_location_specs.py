"""What a location becomes in the cluster, and what is refused before that."""

import base64
from datetime import timedelta

import pytest

from clusterguard.errors import ConfigError
from clusterguard.velero.durations import parse_go_duration
from clusterguard.velero.locations import LocationSpec, _nudged, cloud_credentials, secret_name


def test_everything_is_written_where_velero_reads_it():
    spec = LocationSpec(
        bucket="bucket-b",
        prefix="/a/b/",
        config={"region": "eu-west-1"},
        credentials="[default]\n",
        ca="PEM",
        default=True,
        read_only=True,
        sync_period=timedelta(),
        validation_frequency=timedelta(minutes=5),
    )
    assert spec.to_spec(name="main") == {
        "provider": "aws",
        "objectStorage": {"bucket": "bucket-b", "prefix": "a/b", "caCert": base64.b64encode(b"PEM").decode()},
        "config": {"region": "eu-west-1"},
        "default": True,
        "accessMode": "ReadOnly",
        "backupSyncPeriod": "0s",  # means never, so it is not the same as nothing
        "validationFrequency": "5m0s",
        "credential": {"name": secret_name("main"), "key": "cloud"},
    }


def test_what_is_not_given_is_left_to_the_server():
    assert LocationSpec(bucket="bucket-b").to_spec(name="main") == {
        "provider": "aws",
        "objectStorage": {"bucket": "bucket-b"},
    }


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (LocationSpec(bucket=""), "no bucket"),
        (LocationSpec(bucket="bucket-b", credentials="x", credential=("a", "b")), "twice"),
    ],
)
def test_contradictions_are_refused(spec, problem):
    with pytest.raises(ConfigError, match=problem):
        spec.to_spec(name="main")


def test_credentials_are_a_profile_and_are_never_shown():
    text = cloud_credentials("id", "key", session_token="token")
    assert text == "[default]\naws_access_key_id=id\naws_secret_access_key=key\naws_session_token=token\n"
    assert "hidden" not in repr(LocationSpec(bucket="bucket-b", credentials="hidden"))
    with pytest.raises(ConfigError, match="line break"):
        cloud_credentials("id", "key\n")


@pytest.mark.parametrize("frequency", [None, "1m0s", "0s", "300ms", "nonsense"])
def test_a_nudged_frequency_differs_and_means_the_same(frequency):
    # Velero looks at once at a location whose spec changes.
    nudged = _nudged(frequency)
    assert nudged != frequency
    if frequency not in {None, "nonsense"}:
        assert parse_go_duration(nudged) - parse_go_duration(frequency) == timedelta(milliseconds=1)


@pytest.mark.parametrize("spec", [{"bucket": "a"}, {"bucket": "Old_One", "config": {"region": "eu-west-1"}}])
def test_a_bucket_that_cannot_be_is_refused(spec):
    with pytest.raises(ConfigError) as seen:
        LocationSpec(**spec).to_spec(name="main")
    assert seen.value.code == "invalid-bucket-name"


def test_what_other_providers_call_a_bucket_is_theirs():
    assert LocationSpec(bucket="a", provider="azure").to_spec(name="main")["objectStorage"] == {"bucket": "a"}
