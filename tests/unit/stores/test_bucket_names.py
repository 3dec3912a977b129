"""Which names a bucket can have, at Amazon and elsewhere."""

import pytest

from clusterguard.errors import ConfigError
from clusterguard.stores import open_store
from clusterguard.stores.bucket_names import check_bucket_name, check_new_bucket_name

NEVER = ["", "ab", "a b", "backups/etcd", "s3:backups", "b\u00fcro", "a" * 256, "drill,backups"]
OLD_ONLY = ["Drill_Backups", "drill_backups", "-drill", "drill-", "dr..ill", "10.0.0.1", "dr.-ill", "a" * 64]


@pytest.mark.parametrize("name", ["abc", "drill-backups", "a.b.c", "a" * 63, "0-9", "x--use1-az4--x-s3"])
def test_a_possible_name_passes_everywhere(name):
    assert check_new_bucket_name(name) == check_bucket_name(name, region="eu-west-1") == name
    assert check_bucket_name(name, endpoint="https://s3.example.com") == name


@pytest.mark.parametrize("name", OLD_ONLY)
def test_an_old_name_passes_only_where_such_buckets_are(name):
    assert check_bucket_name(name) == name
    assert check_bucket_name(name, region="us-east-1") == name
    assert check_bucket_name(name, endpoint="https://s3.example.com", region="eu-west-1") == name
    for refuse in (lambda: check_new_bucket_name(name), lambda: check_bucket_name(name, region="eu-west-1")):
        with pytest.raises(ValueError, match="cannot be the name of a bucket"):
            refuse()


@pytest.mark.parametrize("name", NEVER)
def test_an_impossible_name_passes_nowhere(name):
    for settings in ({}, {"endpoint": "https://s3.example.com"}, {"region": "eu-west-1"}):
        with pytest.raises(ValueError, match="cannot be the name of a bucket"):
            check_bucket_name(name, **settings)


def test_a_store_with_an_impossible_bucket_is_not_opened():
    with pytest.raises(ConfigError) as seen:
        open_store("s3://Drill_Backups?region=eu-west-1")
    assert seen.value.code == "invalid-bucket-name"
