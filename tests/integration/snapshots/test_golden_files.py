"""Every kind with every field filled in, as the API modules of Kubernetes bring it: from protobuf to JSON."""

from __future__ import annotations

from collections import Counter

import pytest

from clusterguard.snapshots.fields import field_table
from clusterguard.snapshots.protobuf import decode_message
from filled_objects import API_MODULES, envelope, golden_files, is_stored

pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]  # the modules are downloaded once


@pytest.mark.parametrize("module", API_MODULES)
def test_every_file_decodes_to_its_json(module):
    unknown, versions = Counter(), Counter()
    for minor, value, expected in golden_files(module):
        api_version, kind, place = envelope(value)
        message = field_table(minor).kind(api_version, kind)
        if message is None:
            assert not is_stored(kind) or not api_version, (minor, api_version, kind)
            continue
        found = decode_message(value, *place, message, unknown)
        assert {"apiVersion": api_version, "kind": kind, **found} == expected, (minor, api_version, kind)
        versions[minor] += 1
    assert not unknown
    assert int(module.split(".")[1]) in versions
    assert min(versions.values()) > 130
