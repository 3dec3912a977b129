"""Everything that can be wrong in a policy file, each with its exact place and what was meant."""

# ruff: noqa: E501 - a table of cases, each on a line of its own

from __future__ import annotations

import pytest

ETCD = 'etcd: {endpoints: ["https://127.0.0.1:2379"], caFile: pki/ca.crt, certFile: pki/client.crt, keyFile: pki/client.key}'
VELERO = 'velero: {cluster: "context:production", bucket: "s3://velero/production", includedNamespaces: [shop]}'
CASES = {
    # what to replace, by what, line, column, message
    "unknown key at the top": ("kind: BackupPolicy\n", "kind: BackupPolicy\nspecs: {}\n", 3, 1, "unknown key `specs`; did you mean `spec`?"),
    "other kind": ("kind: BackupPolicy", "kind: Drill", 2, 7, "kind: `BackupPolicy` is expected here, not `Drill`"),
    "other version": ("v1alpha1", "v2", 1, 13, "apiVersion: `clusterguard.dev/v2` is not known; this version of clusterguard reads clusterguard.dev/v1alpha1"),
    "unknown key in spec": ("  retention:", "  retension:", 15, 3, "spec: unknown key `retension`; did you mean `retention`?"),
    "unknown key of a source": (VELERO, VELERO + "\n    every: 1h", 12, 5, "spec.sources[1]: unknown key `every`; known here: name, etcd, velero"),
    "unknown key of etcd": ("caFile", "cafile", 9, 51, "spec.sources[0].etcd: unknown key `cafile`; did you mean `caFile`?"),
    "unknown key of velero": ("includedNamespaces", "namespaces", 11, 79, "spec.sources[1].velero: unknown key `namespaces`; did you mean `namespace`?"),
    "unknown key of retention": ("{daily: 14}", "{dayly: 14}", 15, 15, "spec.retention: unknown key `dayly`; did you mean `daily`?"),
    "no sources": (f"  sources:\n  - name: etcd\n    {ETCD}\n  - name: shop\n    {VELERO}\n", "  sources: []\n", 7, 12, "spec.sources: is empty; at least one is needed"),
    "a source of nothing": (ETCD, "", 8, 5, "spec.sources[0]: one of `etcd` or `velero` is needed"),
    "etcd nowhere": (ETCD, "etcd: {caFile: a}", 9, 11, "spec.sources[0].etcd: one of `cluster` or `endpoints` is needed"),
    "certificate without a key": (", keyFile: pki/client.key", "", 9, 11, "spec.sources[0].etcd: a client certificate needs its key: give both `certFile` and `keyFile`"),
    "certificates for nothing": (ETCD, 'etcd: {cluster: "kind:a", caFile: b}', 9, 11, "spec.sources[0].etcd: certificates are for `endpoints`, and there are none"),
    "etcd's user without a password": (", keyFile: pki/client.key", ", keyFile: pki/client.key, userEnv: U", 9, 11, "spec.sources[0].etcd: a user needs a password: give both `userEnv` and `passwordEnv`"),
    "etcd's password in place": (", keyFile: pki/client.key", ", keyFile: pki/client.key, password: p", 9, 122, "spec.sources[0].etcd: `password` would be a secret in plain sight; say where it is, with `passwordEnv`"),
    "endpoint without http": ("https://127.0.0.1:2379", "127.0.0.1:2379", 9, 24, "spec.sources[0].etcd.endpoints[0]: a URL is expected here"),
    "node of no cluster": (ETCD, 'etcd: {endpoints: ["http://a:1"], nodeShell: local}', 9, 39, "spec.sources[0].etcd: a node belongs to a `cluster`, and there is none"),
    "no node": (ETCD, 'etcd: {cluster: "context:a", nodeShell: remote}', 9, 45, "spec.sources[0].etcd.nodeShell: invalid node; write local, docker:NAME or ssh:[USER@]HOST"),
    "a cluster's bare name": ('"context:production"', "production", 11, 23, "spec.sources[1].velero.cluster: `production` names no cluster; for a context of the kubeconfig write context:production"),
    "a misspelt provider": ("context:production", "contxt:production", 11, 23, "spec.sources[1].velero.cluster: `contxt:production` names no cluster; did you mean `context`?"),
    "a throwaway cluster": ('"context:production"', "kind", 11, 23, "spec.sources[1].velero.cluster: `kind` names no cluster; write kind:NAME"),
    "kubeconfig of no context": ('cluster: "context:production"', 'cluster: "kind:a", kubeconfig: b', 11, 33, "spec.sources[1].velero: a kubeconfig is where `context:NAME` is looked up; this cluster has none"),
    "namespace in and out": ("includedNamespaces: [shop]", "includedNamespaces: [shop], excludedNamespaces: [shop]", 11, 107, "spec.sources[1].velero: `shop` is included and excluded"),
    "misspelt volumes": ("includedNamespaces: [shop]", "volumes: filesystem", 11, 88, "spec.sources[1].velero.volumes: `none`, `snapshots` or `fileSystem` is expected here, not `filesystem`; did you mean `fileSystem`?"),
    "source named twice": ("  - name: shop", "  - name: etcd", 10, 11, "spec.sources[1].name: `etcd` is the name of spec.sources[0] already"),
    "location named twice": ("name: far", "name: near", 14, 12, "spec.locations[1].name: `near` is the name of spec.locations[0] already"),
    "name of no folder": ("name: production", "name: Production", 4, 9, "metadata.name: 'Production' is not a DNS label"),
    "five fields": ("30 3 * * *", "30 3 * *", 6, 20, "spec.schedule.cron: invalid schedule '30 3 * *': write five fields"),
    "hour that is none": ("30 3 * * *", "30 25 * * *", 6, 20, "spec.schedule.cron: '30 25 * * *': the hour is not one"),
    "day that never is": ("30 3 * * *", "0 0 31 2 *", 6, 20, "spec.schedule.cron: '0 0 31 2 *' is never due: no such month has that day"),
    "last day of the month": ("30 3 * * *", "0 0 L * *", 6, 20, "spec.schedule.cron: 'L' is not a day-of-month that both cron and Kubernetes take"),
    "step without a range": ("30 3 * * *", "5/15 3 * * *", 6, 20, "spec.schedule.cron: '5/15' has a step without a range; write 5-59/15"),
    "Sunday as 7": ("30 3 * * *", "30 3 * * 7", 6, 20, "spec.schedule.cron: Sunday is 0 or SUN: 7 is not known to Kubernetes"),
    "unknown time zone": ("Europe/Berlin", "Europe/Brlin", 6, 44, "spec.schedule.timeZone: there is no time zone 'Europe/Brlin'; did you mean `Europe/Berlin`?"),
    "half a time zone": ("Europe/Berlin", "Europe", 6, 44, "spec.schedule.timeZone: there is no time zone 'Europe'"),
    "a path as a time zone": ("Europe/Berlin", "/etc/localtime", 6, 44, "spec.schedule.timeZone: there is no time zone '/etc/localtime'"),
    "grace without a unit": ("timeZone: Europe/Berlin", "grace: 5", 6, 41, "spec.schedule.grace: `5` has no unit; write it like 5s"),
    "no store": ('"s3://backups/all?region=eu-west-1"', "backups", 14, 22, "spec.locations[1].url: 'backups' is not a valid store: it should look like"),
    "misspelt store": ("s3://backups/all?region=eu-west-1", "s4://backups", 14, 22, "spec.locations[1].url: 's4://backups' is not a valid store"),
    "misspelt setting of a store": ("?region=", "?regoin=", 14, 22, "spec.locations[1].url: s3://backups: there is no parameter 'regoin'; did you mean region?"),
    "store in memory": ("./backups", '"memory:"', 13, 23, "spec.locations[0].url: 'memory:' is gone when the process ends"),
    "one place twice": ("s3://backups/all?region=eu-west-1", "./x/../backups", 14, 22, "spec.locations[1].url: this is the same place as location `near`"),
    "one inside the other": ("s3://backups/all?region=eu-west-1", "./backups/more", 14, 22, "spec.locations[1].url: this is inside of location `near`"),
    "one around the other": ("s3://backups/all?region=eu-west-1", ".", 14, 22, "spec.locations[1].url: this contains location `near`"),
    "inside of Velero's": ("s3://velero/production", "s3://backups", 11, 53, "spec.sources[1].velero.bucket: this contains location `far`"),
    "too many copies": ("  retention:", "  copies: 3\n  retention:", 15, 11, "spec.copies: 3 copies need as many locations, and there is only 2 locations"),
    "no copies": ("  retention:", "  copies: 0\n  retention:", 15, 11, "spec.copies: 0 is too small; at least 1"),
    "retention of nothing": ("{daily: 14}", "{daily: 0, last: 0}", 15, 14, "spec.retention: every rule keeps nothing, so every backup would be removed"),
    "age in words": ("{daily: 14}", "{maximumAge: 1 week}", 15, 27, "spec.retention.maximumAge: '1 week' is not a duration"),
    "room in words": ("{daily: 14}", "{maximumBytes: 500GB}", 15, 29, "spec.retention.maximumBytes: a size is expected here, such as 500Gi"),
    "no room": ("{daily: 14}", "{maximumBytes: 0}", 15, 14, "spec.retention: 0 bytes hold no backup"),
    "no reader": ("    recipientsFile: readers.txt\n", "    identityFile: key.txt\n", 17, 5, "spec.encryption: one of `recipients`, `recipientsFile`, `passphraseFile` or `passphraseEnv` is needed"),
    "two ways to read": ("recipientsFile: readers.txt", "recipientsFile: readers.txt\n    passphraseEnv: P", 17, 5, "spec.encryption: `recipientsFile` and `passphraseEnv` exclude each other"),
    "two passphrases": ("recipientsFile: readers.txt", "passphraseEnv: P\n    passphraseFile: p", 17, 5, "spec.encryption: `passphraseFile` and `passphraseEnv` exclude each other"),
    "identity of a passphrase": ("recipientsFile: readers.txt", "passphraseEnv: P\n    identityEnv: I", 17, 5, "spec.encryption: a passphrase opens what it closed; an identity is for recipients"),
    "no recipient": ("recipientsFile: readers.txt", "recipients: [me]", 17, 18, "spec.encryption.recipients[0]: a recipient is expected here: age1"),
    "compression in words": ("  retention:", "  compression: gzip\n  retention:", 15, 16, "spec.compression: `none` is expected here, not `gzip`"),
    "compression as a number": ("  retention:", "  compression: 3\n  retention:", 15, 16, "spec.compression: `none` or {level: 3} is expected here, not `3`, which is a number in YAML"),
    "too much compression": ("  retention:", "  compression: {level: 22}\n  retention:", 15, 24, "spec.compression.level: 22 is too large; at most 19"),
    "proof of nothing": ("  retention:", "  proofs: [{name: p, drill: d.drill.yaml, source: ectd, every: 7d}]\n  retention:", 15, 51, "spec.proofs[0].source: there is no source `ectd`; did you mean `etcd`?"),
    "proof without an end": ("  retention:", "  proofs: [{name: p, drill: d.drill.yaml, source: etcd}]\n  retention:", 15, 12, "spec.proofs[0]: `every` is missing"),
    "unknown occasion": ("[failure, recovery]", "[failed]", 19, 39, "spec.notifications[0].on[0]: `failure`, `warning`, `recovery` or `success` is expected here, not `failed`; did you mean `failure`?"),
    "notification to nobody": (", urlEnv: OPS_URL", "", 19, 5, "spec.notifications[0]: one of `urlFile` or `urlEnv` is needed"),
    "an address in place": ("urlEnv: OPS_URL", "url: slack://a/b/c", 19, 17, "spec.notifications[0]: `url` would be a secret in plain sight; say where it is, with `urlFile` or `urlEnv`"),
    "an address for a variable": ("urlEnv: OPS_URL", "urlEnv: slack://a/b/c", 19, 25, "spec.notifications[0].urlEnv: the name of a variable is expected here"),
    "an address for a file": ("heartbeat.url", "https://hc.example/x", 20, 24, "spec.heartbeat.urlFile: the path of a file is expected here, not what is in it"),
    "textfile that nobody reads": ("  retention:", "  metrics: {textfile: a.txt}\n  retention:", 15, 23, "spec.metrics.textfile: a node exporter reads only files that end in .prom"),
    "a user in a URL": ("  retention:", '  metrics: {pushgateway: "http://a:b@c"}\n  retention:', 15, 26, "spec.metrics.pushgateway: the URL holds a user or a password"),
    "a value that is not there": ("  retention: {daily: 14}", "  retention:", 15, 3, "spec.retention: has no value; write one (such as {}), or leave it out"),
    "unknown variable": ("./backups", '"${env.BACKUP}"', 13, 23, "spec.locations[0].url: `${env.BACKUP}`: the environment has no variable BACKUP; did you mean `BACKUPS`?"),
    "reference to a matrix": ("./backups", '"${matrix.place}"', 13, 23, "spec.locations[0].url: `${matrix.place}` is unknown; only ${env.NAME} is known"),
    "a boolean as a key": ("  retention:", "  yes: 1\n  retention:", 15, 3, "key `yes` is a boolean in YAML; write it in quotes"),
}  # fmt: skip


def test_each_problem_is_told_at_its_place_and_once(minimal, problems):
    wrong = {}
    for case, (old, new, line, column, message) in CASES.items():
        assert old in minimal, case
        found = problems(minimal.replace(old, new, 1), BACKUPS="x")
        if [each[:2] for each in found] != [(line, column)] or not found[0].message.startswith(message):
            wrong[case] = found

    assert not wrong


def test_all_problems_are_told_in_the_order_of_the_file(minimal, problems):
    text = minimal.replace("30 3 * * *", "30 3 31 2 *").replace("daily: 14", "daily: 0").replace("./backups", "backups")

    assert [one.line for one in problems(text)] == [6, 13, 15]


def test_problems_of_shape_are_told_together_with_missing_variables(minimal, problems):
    text = minimal.replace("daily", "dayly").replace("./backups", '"${env.NO}"')

    assert [one.line for one in problems(text)] == [13, 15]


def test_the_error_shows_the_line_and_says_where_to_read_on(minimal, refused):
    error = refused(minimal.replace("daily", "dayly"))

    assert f"   15 |   retention: {{dayly: 14}}\n      | {' ' * 14}^" in error.message
    assert "policy-files.md" in error.hint


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "text\n"])
def test_a_file_without_a_policy_is_refused(text, problems):
    ((line, column, message),) = problems(text)

    assert (line, column) == (1, 1)
    assert "the file is empty" in message or "a mapping is expected here" in message


def test_a_second_document_is_refused(minimal, problems):
    assert problems(f"{minimal}---\n{minimal}") == [(22, 1, "a second document; a policy file holds one policy")]
