"""Everything that can be wrong in a drill file, each with its exact place and what was meant."""

# ruff: noqa: E501 - a table of cases, each on a line of its own

from __future__ import annotations

import pytest

FAULT = "  - delete: {kind: Pod, namespace: shop, selector: app=web}\n"
CASES = {
    # what to replace, by what, line, column, message
    "unknown key at the top": ("kind: Drill\n", "kind: Drill\nspecs: {}\n", 3, 1, "unknown key `specs`; did you mean `spec`?"),
    "unknown key in metadata": ("  name: small\n", "  name: small\n  lables: {}\n", 5, 3, "metadata: unknown key `lables`; did you mean `labels`?"),
    "unknown key in spec": ("  clusters:\n", "  timout: 3m\n  clusters:\n", 6, 3, "spec: unknown key `timout`; did you mean `timeout`?"),
    "unknown key of a cluster": ("main: {}", "main: {startsIn: setup}", 7, 12, "spec.clusters.main: unknown key `startsIn`; did you mean `startIn`?"),
    "unknown key of a provider": ("main: {}", "main: {kind: {worker: 2}}", 7, 19, "spec.clusters.main.kind: unknown key `worker`; did you mean `workers`?"),
    "unknown key of a storage": ("{path: snapshots}", "{path: x, pth: y}", 10, 33, "spec.storage.near.directory: unknown key `pth`; did you mean `path`?"),
    "unknown key of a step": ("  - restored: {}\n", "  - restored: {}\n    timeot: 3m\n", 22, 5, "spec.verify[0]: unknown action `timeot`; did you mean `timeout`?"),
    "unknown action": ("- delete: {kind", "- delet: {kind", 17, 5, "spec.fault[0]: unknown action `delet`; did you mean `delete`?"),
    "action of another phase": ("- restored: {}", "- etcdRestore: {from: before}", 21, 5, "spec.verify[0]: `etcdRestore` is an action of restore, not of verify"),
    "unknown key of an action": ("namespace: shop, selector", "namspace: shop, selector", 17, 25, "spec.fault[0].delete: unknown key `namspace`; did you mean `namespace`?"),
    "unknown key, nothing near": ("- restored: {}", "- restored: {qqq: 1}", 21, 16, "spec.verify[0].restored: unknown key `qqq`; known here: missing, changed, extra, ignore, withoutRules, identity"),
    "unknown key of the canary": ("  clusters:\n", "  canary: {evry: 3s}\n  clusters:\n", 6, 12, "spec.canary: unknown key `evry`; did you mean `every`?"),
    "misspelt word": ("startIn: restore", "startIn: restor", 8, 22, "spec.clusters.other.startIn: `setup` or `restore` is expected here, not `restor`; did you mean `restore`?"),
    "misspelt kind of document": ("kind: Drill\n", "kind: drill\n", 2, 7, "kind: `Drill` is expected here, not `drill`; did you mean `Drill`?"),
    "other version": ("v1alpha1", "v2", 1, 13, "apiVersion: `clusterguard.dev/v2` is not known; this version of clusterguard reads clusterguard.dev/v1alpha1"),
    "missing key": ("{from: before}", "{}", 19, 18, "spec.restore[0].etcdRestore: `from` is missing"),
    "missing phase": ("  fault:\n" + FAULT, "", 6, 3, "spec: a drill breaks something: say what, in `fault`"),
    "empty phase": ("  verify:\n  - restored: {}\n", "  verify: []\n", 20, 11, "spec.verify: is empty; at least one is needed"),
    "two actions": (FAULT, FAULT + "    scale: {kind: Deployment, namespace: a, name: b, replicas: 0}\n", 18, 5, "spec.fault[0]: a step has one action; make `delete` and `scale` steps of their own"),
    "no action": ("- restored: {}", "- timeout: 3m", 21, 5, "spec.verify[0]: a step needs an action, one of `absent`, `assert`, `empty`, `exec`, `http`, `ready`, `restored` or `sameFiles`"),
    "file in no absolute place": ("- restored: {}", "- sameFiles: {in: {namespace: shop, pod: a}, path: a}", 21, 54, "spec.verify[0].sameFiles.path: a path in a container begins with `/`"),
    "no pod for files": ("- restored: {}", "- sameFiles: {in: {namespace: shop}, path: /a}", 21, 21, "spec.verify[0].sameFiles.in: one of `pod` or `selector` is needed"),
    "no node": (FAULT, FAULT + "  - stopNode: {}\n", 18, 15, "spec.fault[1].stopNode: one of `name` or `selector` is needed"),
    "a node twice": (FAULT, FAULT + "  - stopNode: {name: a, selector: b=c}\n", 18, 15, "spec.fault[1].stopNode: `name` and `selector` exclude each other"),
    "misspelt volumes": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, volumes: filesystem}", 15, 38, "spec.backup[1].veleroBackup.volumes: `fileSystem` is expected here, not `filesystem`; did you mean `fileSystem`?"),
    "unknown phase to expect": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, expect: partial}", 15, 37, "spec.backup[1].veleroBackup.expect: `Completed`, `PartiallyFailed`, `Failed` or `FailedValidation` is expected here, not `partial`"),
    "unknown finding to tolerate": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, tolerate: [exist-different]}", 15, 40, "spec.backup[1].veleroBackup.tolerate[0]: `not-final`, `failed`, `partially-failed`"),
    "a size in other units": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a, size: 8MB}\n  backup:\n", 13, 64, "spec.setup[1].writeFile.size: a size is expected here, such as 4096, 512Ki or 8Mi"),
    "a file too large": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a, size: 300Mi}\n  backup:\n", 13, 64, "spec.setup[1].writeFile.size: a file has at least one byte, and at most 256Mi: it passes through the API server"),
    "neither size nor text": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a}\n  backup:\n", 13, 16, "spec.setup[1].writeFile: one of `size` or `content` is needed"),
    "value left out": ("- restored: {}", "- restored:", 21, 5, "spec.verify[0].restored: has no value; write one (such as {}), or leave it out"),
    "list for a mapping": ("- restored: {}", "- restored: []", 21, 15, "spec.verify[0].restored: a mapping is expected here, not a list"),
    "mapping for a list": ("  verify:\n  - restored: {}\n", "  verify: {restored: {}}\n", 20, 11, "spec.verify: a list is expected here, not a mapping"),
    "text for a number": ("- restored: {}", '- http: {service: a, namespace: b, port: "80"}', 21, 44, "spec.verify[0].http.port: a whole number is expected here, not the text `80`"),
    "number too large": ("- restored: {}", "- http: {service: a, namespace: b, port: 99999}", 21, 44, "spec.verify[0].http.port: 99999 is too large; at most 65535"),
    "no is a boolean": ("name: small", "name: no", 4, 9, 'metadata.name: text is expected here, not `no`, which is a boolean in YAML; in quotes, "no", it is text'),
    "on as a label": ("  name: small\n", "  name: small\n  labels: {night: on}\n", 5, 19, 'metadata.labels.night: text is expected here, not `on`, which is a boolean in YAML; in quotes, "on", it is text'),
    "octal as a name": ("{name: before}", "{name: 0644}", 14, 26, 'spec.backup[0].etcdSnapshot.name: text is expected here, not `0644`, which is a number in YAML; in quotes, "0644", it is text'),
    "yes for text": ("selector: app=web", "selector: yes", 17, 52, 'spec.fault[0].delete.selector: text is expected here, not `yes`, which is a boolean in YAML; in quotes, "yes", it is text'),
    "text for a boolean": ("selector: app=web", 'all: "yes"', 17, 47, "spec.fault[0].delete.all: true or false is expected here, not the text `yes`"),
    "duration without unit": ("- restored: {}", "- restored: {}\n    timeout: 90", 22, 14, "spec.verify[0].timeout: `90` has no unit; write it like 90s"),
    "sexagesimal is no duration": ("- restored: {}", "- restored: {}\n    timeout: 1:30", 22, 14, "spec.verify[0].timeout: '1:30' is not a duration; write it like 90s, 15m or 1h30m"),
    "no count": ("- restored: {}", "- restored: {missing: few}", 21, 25, 'spec.verify[0].restored.missing: a count is expected here, such as 3 or ">=3", not \'few\''),
    "unknown rule": ("- restored: {}", "- restored: {withoutRules: [stats]}", 21, 31, "spec.verify[0].restored.withoutRules[0]: 'stats' is not a rule for volatile fields; did you mean `status`?"),
    "rule of another restore": ("- restored: {}", "- restored: {withoutRules: [velero labels]}", 21, 31, "spec.verify[0].restored.withoutRules[0]: etcd-restore, which this drill compares by, has no rule `velero labels`"),
    "kind in lower case": ("kind: Pod, namespace: shop, selector", "kind: pods, namespace: shop, selector", 17, 20, "spec.fault[0].delete.kind: 'pods' is not a kind as manifests write it; did you mean `Pod`?"),
    "bad selector": ("app=web", "app=>web", 17, 52, "spec.fault[0].delete.selector: invalid label selector 'app=>web': write app=web, tier!=cache, env in (test,live) or !canary"),
    "bad name of a drill": ("name: small", "name: Small_One", 4, 9, "metadata.name: 'Small_One' is not a DNS label: lower-case letters, digits and `-`, at most 63 characters"),
    "bad name of a cluster": ("    other: {", "    Other: {", 8, 5, "spec.clusters.Other: 'Other' is not a DNS label: lower-case letters, digits and `-`, at most 63 characters"),
    "two providers": ("main: {}", "main: {kind: {}, embedded: {}}", 7, 11, "spec.clusters.main: `kind` and `embedded` exclude each other"),
    "existing cluster started": ("other: {startIn: restore}", "other: {context: prod, startIn: restore}", 8, 28, "spec.clusters.other: an existing cluster is not started by the drill"),
    "no storage": ("{directory: {path: snapshots}}", "{}", 10, 11, "spec.storage.near: one of `s3` or `directory` is needed"),
    "bad canary": ("  clusters:\n", "  canary: often\n  clusters:\n", 6, 11, "spec.canary: true, false or {every: 30s} is expected here, not the text `often`"),
    "time zone alone": ("  clusters:\n", "  timeZone: Europe/Berlin\n  clusters:\n", 6, 3, "spec: a time zone without a `schedule` means nothing"),
    "promise without a measure": ("  clusters:\n", "  objectives: {rpo: 1h}\n  canary: false\n  clusters:\n", 6, 21, "spec.objectives.rpo: without the canary nothing measures data loss"),
    "bad schedule": ("  clusters:\n", "  schedule: daily\n  clusters:\n", 6, 13, "spec.schedule: invalid schedule 'daily': write five fields, such as \"0 4 * * 1\""),
    "delete without a choice": (", selector: app=web", "", 17, 13, "spec.fault[0].delete: one of `name`, `names`, `selector` or `all` is needed"),
    "delete with two choices": ("selector: app=web", "selector: app=web, all: true", 17, 13, "spec.fault[0].delete: `selector` and `all` exclude each other"),
    "delete without a kind": ("kind: Pod, namespace: shop, s", "namespace: shop, s", 17, 13, "spec.fault[0].delete: one of `kind` or `kinds` is needed"),
    "delete in every namespace": ("namespace: shop, selector: app=web", "all: true", 17, 13, "spec.fault[0].delete: a Pod lives in a namespace; say in which, with `namespace`"),
    "namespace of a namespace": ("{kind: Pod, namespace: shop, selector: app=web}", "{kind: Namespace, namespace: shop, name: shop}", 17, 31, "spec.fault[0].delete: a Namespace lives in no namespace"),
    "a command on the host": ("- restored: {}", "- exec: {command: [rm, -rf, /]}", 21, 11, "spec.verify[0].exec: `in` is missing"),
    "assert of nothing": ("- restored: {}", "- assert: {resource: {kind: Pod}}", 21, 14, "spec.verify[0].assert: resource.apiVersion is needed, as in a manifest"),
    "unknown cluster": ("- restored: {}", "- restored: {}\n    cluster: mian", 22, 14, "spec.verify[0].cluster: there is no cluster `mian` in spec.clusters; did you mean `main`?"),
    "cluster not there yet": (FAULT, FAULT + "    cluster: other\n", 18, 14, "spec.fault[0].cluster: cluster `other` starts in the restore phase; it is not there yet in fault"),
    "unknown cluster to delete": (FAULT, "  - deleteCluster: {name: mains}\n", 17, 27, "spec.fault[0].deleteCluster.name: there is no cluster `mains` in spec.clusters; did you mean `main`?"),
    "unknown storage": ("{name: before}", "{name: before, storage: nier}", 14, 43, "spec.backup[0].etcdSnapshot.storage: there is no `nier` in spec.storage; did you mean `near`?"),
    "storage to block": (FAULT, "  - blockStorage: {name: far}\n", 17, 26, "spec.fault[0].blockStorage.name: there is no `far` in spec.storage"),
    "unknown snapshot": ("{from: before}", "{from: befor}", 19, 25, "spec.restore[0].etcdRestore.from: the backup phase makes no `befor`; did you mean `before`?"),
    "wrong engine": ("{from: before}", "{from: nightly}", 19, 25, "spec.restore[0].etcdRestore.from: `nightly` is made by veleroBackup, which etcdRestore cannot restore"),
    "backup made later": ("  - etcdSnapshot: {name: before}\n", "  - verifyBackup: {backup: before}\n  - etcdSnapshot: {name: before}\n", 14, 28, "spec.backup[0].verifyBackup.backup: `before` is made only later, by spec.backup[1]"),
    "backup named twice": ("{name: nightly}", "{name: before}", 15, 26, "spec.backup[1].veleroBackup.name: spec.backup[0] already makes a backup `before`"),
    "copy onto itself": ("  fault:", "  - copyBackup: {backup: before, from: near, to: near}\n  fault:", 16, 46, "spec.backup[2].copyBackup: `from` and `to` are the same storage"),
    "wait that cannot end": ("- restored: {}", "- ready: {kind: Pod, stableFor: 10s}\n    timeout: 10s", 21, 35, "spec.verify[0].ready.stableFor: not shorter than the step's timeout, so it could never hold"),
    "unknown variable": ("selector: app=web", 'selector: "app=${env.APP}"', 17, 52, "spec.fault[0].delete.selector: `${env.APP}`: the environment has no variable APP; did you mean `APPS`?"),
    "matrix inside of the matrix": ("  clusters:\n", "  matrix: {a: ['${matrix.b}'], b: ['${matrix.a}']}\n  clusters:\n", 6, 16, "spec.matrix.a[0]: `${matrix.b}` inside of the matrix is a cycle"),
    "matrix of no lists": ("  clusters:\n", "  matrix: {a: 1}\n  clusters:\n", 6, 11, 'spec.matrix: a mapping of lists is expected here, such as {k8s: ["1.35", "1.36"]}'),
    "empty matrix": ("  clusters:\n", "  matrix: {a: []}\n  clusters:\n", 6, 11, "spec.matrix: `a` has no values"),
    "file that is not there": ("- ready: {kind: Pod, namespace: shop}", "- apply: {file: nothing.yaml}", 12, 19, "spec.setup[0].apply.file: no such file: nothing.yaml"),
    "file elsewhere": ("- ready: {kind: Pod, namespace: shop}", "- apply: {files: [a.yaml, ../../etc/passwd]}", 12, 29, "spec.setup[0].apply.files[1]: ../../etc/passwd is outside of"),
    "absolute file": ("- ready: {kind: Pod, namespace: shop}", "- apply: {file: /etc/passwd}", 12, 19, "spec.setup[0].apply.file: /etc/passwd is an absolute path; name files relative to the drill file"),
    "object without a name": ("- ready: {kind: Pod, namespace: shop}", "- apply: {manifest: {apiVersion: v1, kind: Pod, metadata: {}}}", 12, 61, "spec.setup[0].apply.manifest.metadata: an object needs `metadata.name`: a drill looks for it by name"),
}  # fmt: skip


TWO_OF_THEIR_KIND = {"matrix inside of the matrix", "file elsewhere", "unknown cluster to delete"}


def test_a_mistake_is_one_problem_at_its_place(minimal, problems):
    for case, (old, new, line, column, message) in CASES.items():
        assert old in minimal, case
        found = problems(minimal.replace(old, new, 1), environ={"APPS": "x"})
        there = [one for one in found if one[:2] == (line, column) and one.message.startswith(message)]
        assert there, (case, found)
        assert len(found) == 1 or case in TWO_OF_THEIR_KIND, (case, found)


def test_all_problems_are_told_in_the_order_of_the_file(minimal, problems):
    text = minimal.replace("startIn: restore", "startIn: never").replace("app=web", "=").replace("restored", "restord")

    found = problems(text)

    assert [one.line for one in found] == [8, 17, 21]


def test_nothing_is_told_twice_for_every_combination_of_a_matrix(minimal, problems):
    text = minimal.replace("  clusters:\n", "  matrix: {a: [1, 2, 3]}\n  clusters:\n").replace("app=web", "=")

    assert len(problems(text)) == 1


def test_the_error_shows_the_line_and_says_where_to_read_on(minimal, write):
    from clusterguard.drills.load import load_drill
    from clusterguard.errors import InvalidDrillError

    path = write(minimal.replace("namespace: shop, selector", "namspace: shop, selector"))

    with pytest.raises(InvalidDrillError) as caught:
        load_drill(path)

    line = "  - delete: {kind: Pod, namspace: shop, selector: app=web}"
    assert f"   17 | {line}\n      | {' ' * 24}^" in str(caught.value)
    assert "drill-files.md" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1, 1, "the file is empty")),
        ("# nothing\n---\n", (1, 1, "the file is empty")),
        ("[]\n", (1, 1, "a mapping is expected here, not a list")),
        ("just text\n", (1, 1, "a mapping is expected here, not the text `just text`")),
    ],
)
def test_a_file_without_a_drill_is_refused(text, expected, problems):
    assert problems(text) == [expected]


def test_a_second_document_is_refused(minimal, problems):
    assert problems(f"{minimal}---\n{minimal}") == [(23, 1, "a second document; a drill file holds one drill")]
