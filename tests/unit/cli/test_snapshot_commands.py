"""``clusterguard snapshot``: what it prints, what it hides, and its exit codes."""

from __future__ import annotations

import gzip
import json

import pytest
import yaml

from bolt_pages import History
from clusterguard.etcd.protobuf import length_delimited as text
from clusterguard.etcd.protobuf import varint_field as number
from small_snapshot import OBJECTS, file_of, history_of, stored, widget

APPLIED = text(12, text(1, b"kubectl.kubernetes.io/last-applied-configuration") + text(2, b'{"stringData":"s3cret"}'))
MANAGED = text(17, text(1, b"kubectl") + text(7, text(1, b'{"f:data":{}}')))


@pytest.fixture
def file(tmp_path):
    return file_of(tmp_path, history_of(OBJECTS))


@pytest.fixture
def run(cli, file):
    return lambda command, *words: cli("snapshot", command, file, *words)


def test_ls_counts_kinds(run):
    ended = run("ls", "-o", "json")
    document = json.loads(ended.out)
    assert {each["resource"]: each["objects"] for each in document["kinds"]} == {
        "endpoints": 1,
        "nodes": 1,
        "pods": 3,
        "secrets": 2,
        "services": 1,
        "widgets.example.com": 1,
    }
    assert (ended.code, document["bookkeeping"]) == (0, 2)
    assert run("ls", "-o", "name").out.split() == sorted(each["resource"] for each in document["kinds"])
    table = run("ls").out
    assert "widgets.example.com" in table
    assert "9 objects at revision 14" in table
    assert "belong to nothing known" not in table


def test_ls_tells_of_keys_that_belong_to_nothing_known(cli, tmp_path):
    strange = {f"/registry/metrics.example.com/samples/shop/web/{each}": b"x" for each in range(3)}
    file = file_of(tmp_path, history_of(OBJECTS | strange))
    assert "3 keys belong to nothing known: /registry/metrics.example.com/samples" in cli("snapshot", "ls", file).out
    unknown = json.loads(cli("snapshot", "ls", file, "-o", "json").out)["unknown"]
    assert unknown == {"/registry/metrics.example.com/samples": 3}


def test_ls_lists_objects_of_one_kind(run):
    assert run("ls", "po", "-o", "name").out.split() == ["pods/web-9", "pods/db-1", "pods/web-1"]
    assert run("ls", "po", "-n", "shop", "-l", "app=web", "-o", "name").out.split() == ["pods/web-1"]
    found = json.loads(run("ls", "-n", "other", "-o", "json").out)
    assert [(each["resource"], each["name"]) for each in found] == [("pods", "web-9")]
    assert "web-9" in run("ls", "-n", "other").out


def test_ls_by_labels_does_not_pass_over_what_it_cannot_read(run):
    ended = run("ls", "secrets", "-l", "app=web")
    assert ended.code == 2
    assert "secrets shop/sealed" in ended.err
    assert run("ls", "secrets").code == 0  # its keys can be read


def test_get_prints_what_kubectl_does(run):
    item = json.loads(run("get", "pods", "web-1", "-n", "shop", "-o", "json").out)
    assert (item["kind"], item["metadata"]["labels"], item["metadata"]["resourceVersion"]) == (
        "Pod",
        {"app": "web"},
        "2",
    )
    assert yaml.safe_load(run("get", "po/web-1", "-n", "shop").out) == item
    assert run("get", "no", "node-1", "-o", "name").out == "node/node-1\n"
    assert run("get", "widgets", "a", "-n", "shop", "-o", "name").out == "widget.example.com/a\n"
    listed = json.loads(run("get", "pods", "-l", "app=web", "-o", "json").out)
    assert [each["metadata"]["name"] for each in listed["items"]] == ["web-9", "web-1"]
    assert run("get", "pods", "-n", "shop", "-o", "name").out.split() == ["pod/db-1", "pod/web-1"]


@pytest.mark.parametrize(
    "words",
    [
        ["pods", "web-1"],  # it is not in the namespace `default`
        ["nonsense", "a"],
        ["nodes", "node-1", "-n", "shop"],
        ["po/web-1", "web-1"],
        ["pods", "web-1", "-l", "app=web"],
        ["pods", "--revision", "3"],
        ["pods", "-l", "a b"],
        ["secrets", "sealed", "-n", "shop"],
    ],
)
def test_get_says_what_is_wrong(run, words):
    ended = run("get", *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_all_of_a_kind_is_not_all_where_one_cannot_be_read(run):
    ended = run("get", "secrets", "-o", "json")
    assert [each["metadata"]["name"] for each in json.loads(ended.out)["items"]] == ["db"]
    assert ended.code == 2
    assert "secrets shop/sealed" in ended.err


def test_what_secrets_hold_is_hidden(cli, tmp_path):
    data = text(2, text(1, b"password") + text(2, b"s3cret"))
    metadata = text(1, b"db") + text(3, b"shop") + APPLIED
    value = b"k8s\0" + text(1, text(1, b"v1") + text(2, b"Secret")) + text(2, text(1, metadata) + data)
    file = file_of(tmp_path, history_of({"/registry/secrets/shop/db": value}))
    for words in (["db"], []):
        shown = cli("snapshot", "get", file, "secret", *words, "-n", "shop", "-o", "json").out
        assert "s3cret" not in shown
        assert "czNjcmV0" not in shown
        assert "6 bytes" in shown
        clear = cli("snapshot", "get", file, "secret", *words, "-n", "shop", "-o", "json", "--show-secrets").out
        assert "czNjcmV0" in clear
        assert '\\"s3cret\\"' in clear
    found = cli("snapshot", "search", file, "s3cret").out
    assert found.split() == [
        *("secrets", "shop/db", 'metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]'),
        *("secrets", "shop/db", "data.password"),
    ]


def test_managed_fields_are_hidden_as_kubectl_hides_them(cli, tmp_path):
    value = b"k8s\0" + text(1, text(1, b"v1") + text(2, b"ConfigMap")) + text(2, text(1, text(1, b"c") + MANAGED))
    file = file_of(tmp_path, history_of({"/registry/configmaps/default/c": value}))
    assert "managedFields" not in cli("snapshot", "get", file, "cm", "c").out
    assert "f:data" in cli("snapshot", "get", file, "cm", "c", "--show-managed-fields").out


def test_history_says_what_each_change_did(cli, tmp_path):
    key = b"/registry/example.com/widgets/shop/a"
    history = History()
    for spec in ({"size": 1, "same": 0}, {"size": 2, "same": 0, "new": [1]}):
        history.transaction([key], value=widget("a", **spec))
    history.transaction([], [key])
    history.transaction([key], value=b"k8s:enc:kms:v2:vault:\x00")
    file = file_of(tmp_path, history)
    words = ["widgets", "a", "-n", "shop"]
    told = json.loads(cli("snapshot", "history", file, *words, "-o", "json").out)
    assert [(each["revision"], each["change"], each["fields"]) for each in told] == [
        (2, "put", []),
        (3, "changed", ["spec.new", "spec.size"]),
        (4, "deleted", []),
        (5, "cannot be read (stored-object-kms)", []),
    ]
    assert "spec.new, spec.size" in cli("snapshot", "history", file, *words).out
    first = cli("snapshot", "get", file, *words, "--revision", "2", "-o", "json").out
    assert json.loads(first)["spec"] == {"size": 1, "same": 0}
    assert cli("snapshot", "history", file, "widgets/b", "-n", "shop").code == 2
    assert cli("snapshot", "history", file, "widgets", "-n", "shop").code == 2


def test_search_ends_with_what_it_found(run, cli, tmp_path):
    assert run("search", "a <b>", "--kind", "widgets").out == "widgets.example.com shop/a  spec.note\n"
    assert run("search", "web-9", "--kind", "pods").out == "pods other/web-9  metadata.name\n"
    assert run("search", "nowhere", "--kind", "pods").code == 1
    assert run("search", "nowhere").code == 2  # one Secret could not be looked into


def test_another_prefix_is_found_by_what_is_elsewhere(run):
    assert run("ls", "--prefix", "/kubernetes.io", "-o", "name").out == "pods\n"
    ended = run("ls", "--prefix", "/nothing")
    assert ended.code == 2
    assert "/registry" in ended.out


def test_unknown_fields_are_told(cli, tmp_path):
    value = stored("ConfigMap", "c", "default", rest=number(999, 1))
    file = file_of(tmp_path, history_of({"/registry/configmaps/default/c": value}))
    assert "core/v1.ConfigMap 999" in cli("snapshot", "get", file, "cm", "c").err


def test_a_configuration_of_keys_is_read_once_and_named_if_wrong(run, tmp_path):
    wrong = tmp_path / "keys.yaml"
    wrong.write_text("kind: Pod")
    wrong.chmod(0o600)
    ended = run("ls", "--encryption-config", wrong)
    assert ended.code == 2
    assert str(wrong) in ended.err


def test_any_snapshot_is_opened_whatever_it_is_wrapped_in(cli, file, tmp_path):
    wrapped = tmp_path / "nightly"
    wrapped.write_bytes(gzip.compress(file.read_bytes()))
    assert cli("snapshot", "ls", wrapped, "-o", "name").out == cli("snapshot", "ls", file, "-o", "name").out
    assert cli("snapshot", "ls", tmp_path / "none").code == 2
