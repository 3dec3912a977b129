"""Mistakes in drill and policy files: what to replace, by what, and the line and column of the problem.

The texts that they are told by are in golden/messages.txt.
"""

# ruff: noqa: E501 - tables of cases, each on a line of its own

DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata:
  name: small
spec:
  clusters:
    main: {}
    other: {startIn: restore}
  storage:
    near: {directory: {path: snapshots}}
  setup:
  - ready: {kind: Pod, namespace: shop}
  backup:
  - etcdSnapshot: {name: before}
  - veleroBackup: {name: nightly}
  fault:
  - delete: {kind: Pod, namespace: shop, selector: app=web}
  restore:
  - etcdRestore: {from: before}
  verify:
  - restored: {}
"""
FAULT = "  - delete: {kind: Pod, namespace: shop, selector: app=web}\n"
DRILL_MISTAKES = {
    "unknown key at the top": ("kind: Drill\n", "kind: Drill\nspecs: {}\n", 3, 1),
    "unknown key in metadata": ("  name: small\n", "  name: small\n  lables: {}\n", 5, 3),
    "unknown key in spec": ("  clusters:\n", "  timout: 3m\n  clusters:\n", 6, 3),
    "unknown key of a cluster": ("main: {}", "main: {startsIn: setup}", 7, 12),
    "unknown key of a provider": ("main: {}", "main: {kind: {worker: 2}}", 7, 19),
    "unknown key of a storage": ("{path: snapshots}", "{path: x, pth: y}", 10, 33),
    "unknown key of a step": ("  - restored: {}\n", "  - restored: {}\n    timeot: 3m\n", 22, 5),
    "unknown action": ("- delete: {kind", "- delet: {kind", 17, 5),
    "action of another phase": ("- restored: {}", "- etcdRestore: {from: before}", 21, 5),
    "unknown key of an action": ("namespace: shop, selector", "namspace: shop, selector", 17, 25),
    "unknown key, nothing near": ("- restored: {}", "- restored: {qqq: 1}", 21, 16),
    "unknown key of the canary": ("  clusters:\n", "  canary: {evry: 3s}\n  clusters:\n", 6, 12),
    "misspelt word": ("startIn: restore", "startIn: restor", 8, 22),
    "misspelt kind of document": ("kind: Drill\n", "kind: drill\n", 2, 7),
    "other version": ("v1alpha1", "v2", 1, 13),
    "missing key": ("{from: before}", "{}", 19, 18),
    "missing phase": ("  fault:\n" + FAULT, "", 6, 3),
    "empty phase": ("  verify:\n  - restored: {}\n", "  verify: []\n", 20, 11),
    "two actions": (FAULT, FAULT + "    scale: {kind: Deployment, namespace: a, name: b, replicas: 0}\n", 18, 5),
    "no action": ("- restored: {}", "- timeout: 3m", 21, 5),
    "file in no absolute place": ("- restored: {}", "- sameFiles: {in: {namespace: shop, pod: a}, path: a}", 21, 54),
    "no pod for files": ("- restored: {}", "- sameFiles: {in: {namespace: shop}, path: /a}", 21, 21),
    "no node": (FAULT, FAULT + "  - stopNode: {}\n", 18, 15),
    "a node twice": (FAULT, FAULT + "  - stopNode: {name: a, selector: b=c}\n", 18, 15),
    "misspelt volumes": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, volumes: filesystem}", 15, 38),
    "volumes said twice": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, volumes: move, extra: {snapshotVolumes: true}}", 15, 44),
    "unknown phase to expect": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, expect: partial}", 15, 37),
    "unknown finding to tolerate": ("- etcdSnapshot: {name: before}", "- etcdSnapshot: {name: before}\n  - veleroBackup: {name: v, tolerate: [exist-different]}", 15, 40),
    "a size in other units": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a, size: 8MB}\n  backup:\n", 13, 64),
    "a file too large": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a, size: 300Mi}\n  backup:\n", 13, 64),
    "neither size nor text": ("  backup:\n", "  - writeFile: {in: {namespace: shop, pod: a}, path: /a}\n  backup:\n", 13, 16),
    "value left out": ("- restored: {}", "- restored:", 21, 5),
    "list for a mapping": ("- restored: {}", "- restored: []", 21, 15),
    "mapping for a list": ("  verify:\n  - restored: {}\n", "  verify: {restored: {}}\n", 20, 11),
    "text for a number": ("- restored: {}", '- http: {service: a, namespace: b, port: "80"}', 21, 44),
    "number too large": ("- restored: {}", "- http: {service: a, namespace: b, port: 99999}", 21, 44),
    "no is a boolean": ("name: small", "name: no", 4, 9),
    "on as a label": ("  name: small\n", "  name: small\n  labels: {night: on}\n", 5, 19),
    "octal as a name": ("{name: before}", "{name: 0644}", 14, 26),
    "yes for text": ("selector: app=web", "selector: yes", 17, 52),
    "text for a boolean": ("selector: app=web", 'all: "yes"', 17, 47),
    "duration without unit": ("- restored: {}", "- restored: {}\n    timeout: 90", 22, 14),
    "sexagesimal is no duration": ("- restored: {}", "- restored: {}\n    timeout: 1:30", 22, 14),
    "no count": ("- restored: {}", "- restored: {missing: few}", 21, 25),
    "unknown rule": ("- restored: {}", "- restored: {withoutRules: [stats]}", 21, 31),
    "rule of another restore": ("- restored: {}", "- restored: {withoutRules: [velero labels]}", 21, 31),
    "kind in lower case": ("kind: Pod, namespace: shop, selector", "kind: pods, namespace: shop, selector", 17, 20),
    "bad selector": ("app=web", "app=>web", 17, 52),
    "bad name of a drill": ("name: small", "name: Small_One", 4, 9),
    "bad name of a cluster": ("    other: {", "    Other: {", 8, 5),
    "two providers": ("main: {}", "main: {kind: {}, context: prod}", 7, 11),
    "existing cluster started": ("other: {startIn: restore}", "other: {context: prod, startIn: restore}", 8, 28),
    "no storage": ("{directory: {path: snapshots}}", "{}", 10, 11),
    "bucket of a throwaway server": ("{directory: {path: snapshots}}", "{s3: {bucket: Drill_Backups, endpoint: local}}", 10, 17),
    "bucket of a region": ("{directory: {path: snapshots}}", "{s3: {bucket: drill_backups, region: eu-west-1}}", 10, 17),
    "bucket and prefix in one": ("{directory: {path: snapshots}}", "{s3: {bucket: backups/etcd, endpoint: 'https://s3.example.com'}}", 10, 17),
    "bad canary": ("  clusters:\n", "  canary: often\n  clusters:\n", 6, 11),
    "time zone alone": ("  clusters:\n", "  timeZone: Europe/Berlin\n  clusters:\n", 6, 3),
    "promise without a measure": ("  clusters:\n", "  objectives: {rpo: 1h}\n  canary: false\n  clusters:\n", 6, 21),
    "bad schedule": ("  clusters:\n", "  schedule: daily\n  clusters:\n", 6, 13),
    "delete without a choice": (", selector: app=web", "", 17, 13),
    "delete with two choices": ("selector: app=web", "selector: app=web, all: true", 17, 13),
    "delete without a kind": ("kind: Pod, namespace: shop, s", "namespace: shop, s", 17, 13),
    "delete in every namespace": ("namespace: shop, selector: app=web", "all: true", 17, 13),
    "namespace of a namespace": ("{kind: Pod, namespace: shop, selector: app=web}", "{kind: Namespace, namespace: shop, name: shop}", 17, 31),
    "a command on the host": ("- restored: {}", "- exec: {command: [rm, -rf, /]}", 21, 11),
    "assert of nothing": ("- restored: {}", "- assert: {resource: {kind: Pod}}", 21, 14),
    "unknown cluster": ("- restored: {}", "- restored: {}\n    cluster: mian", 22, 14),
    "cluster not there yet": (FAULT, FAULT + "    cluster: other\n", 18, 14),
    "unknown cluster to delete": (FAULT, "  - deleteCluster: {name: mains}\n", 17, 27),
    "unknown storage": ("{name: before}", "{name: before, storage: nier}", 14, 43),
    "storage to block": (FAULT, "  - blockStorage: {name: far}\n", 17, 26),
    "unknown snapshot": ("{from: before}", "{from: befor}", 19, 25),
    "wrong engine": ("{from: before}", "{from: nightly}", 19, 25),
    "backup made later": ("  - etcdSnapshot: {name: before}\n", "  - verifyBackup: {backup: before}\n  - etcdSnapshot: {name: before}\n", 14, 28),
    "backup named twice": ("{name: nightly}", "{name: before}", 15, 26),
    "copy onto itself": ("  fault:", "  - copyBackup: {backup: before, from: near, to: near}\n  fault:", 16, 46),
    "wait that cannot end": ("- restored: {}", "- ready: {kind: Pod, stableFor: 10s}\n    timeout: 10s", 21, 35),
    "unknown variable": ("selector: app=web", 'selector: "app=${env.APP}"', 17, 52),
    "matrix inside of the matrix": ("  clusters:\n", "  matrix: {a: ['${matrix.b}'], b: ['${matrix.a}']}\n  clusters:\n", 6, 16),
    "matrix of no lists": ("  clusters:\n", "  matrix: {a: 1}\n  clusters:\n", 6, 11),
    "empty matrix": ("  clusters:\n", "  matrix: {a: []}\n  clusters:\n", 6, 11),
    "file that is not there": ("- ready: {kind: Pod, namespace: shop}", "- apply: {file: nothing.yaml}", 12, 19),
    "file elsewhere": ("- ready: {kind: Pod, namespace: shop}", "- apply: {files: [a.yaml, ../../etc/passwd]}", 12, 29),
    "absolute file": ("- ready: {kind: Pod, namespace: shop}", "- apply: {file: /etc/passwd}", 12, 19),
    "object without a name": ("- ready: {kind: Pod, namespace: shop}", "- apply: {manifest: {apiVersion: v1, kind: Pod, metadata: {}}}", 12, 61),
}  # fmt: skip

POLICY = """\
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata:
  name: production
spec:
  schedule: {cron: "30 3 * * *", timeZone: Europe/Berlin}
  sources:
  - name: etcd
    etcd: {endpoints: ["https://127.0.0.1:2379"], caFile: pki/ca.crt, certFile: pki/client.crt, keyFile: pki/client.key}
  - name: shop
    velero: {cluster: "context:production", bucket: "s3://velero/production", includedNamespaces: [shop]}
  locations:
  - {name: near, url: ./backups}
  - {name: far, url: "s3://backups/all?region=eu-west-1"}
  retention: {daily: 14}
  encryption:
    recipientsFile: readers.txt
  notifications:
  - {name: ops, urlEnv: OPS_URL, on: [failure, recovery]}
  heartbeat: {urlFile: heartbeat.url}
"""
ETCD = 'etcd: {endpoints: ["https://127.0.0.1:2379"], caFile: pki/ca.crt, certFile: pki/client.crt, keyFile: pki/client.key}'
VELERO = 'velero: {cluster: "context:production", bucket: "s3://velero/production", includedNamespaces: [shop]}'
POLICY_MISTAKES = {
    "unknown key at the top": ("kind: BackupPolicy\n", "kind: BackupPolicy\nspecs: {}\n", 3, 1),
    "other kind": ("kind: BackupPolicy", "kind: Drill", 2, 7),
    "other version": ("v1alpha1", "v2", 1, 13),
    "unknown key in spec": ("  retention:", "  retension:", 15, 3),
    "unknown key of a source": (VELERO, VELERO + "\n    every: 1h", 12, 5),
    "unknown key of etcd": ("caFile", "cafile", 9, 51),
    "unknown key of velero": ("includedNamespaces", "namespaces", 11, 79),
    "unknown key of retention": ("{daily: 14}", "{dayly: 14}", 15, 15),
    "no sources": (f"  sources:\n  - name: etcd\n    {ETCD}\n  - name: shop\n    {VELERO}\n", "  sources: []\n", 7, 12),
    "a source of nothing": (ETCD, "", 8, 5),
    "etcd nowhere": (ETCD, "etcd: {caFile: a}", 9, 11),
    "certificate without a key": (", keyFile: pki/client.key", "", 9, 11),
    "certificates for nothing": (ETCD, 'etcd: {cluster: "kind:a", caFile: b}', 9, 11),
    "etcd's user without a password": (", keyFile: pki/client.key", ", keyFile: pki/client.key, userEnv: U", 9, 11),
    "etcd's password in place": (", keyFile: pki/client.key", ", keyFile: pki/client.key, password: p", 9, 122),
    "endpoint without http": ("https://127.0.0.1:2379", "127.0.0.1:2379", 9, 24),
    "node of no cluster": (ETCD, 'etcd: {endpoints: ["http://a:1"], nodeShell: local}', 9, 39),
    "no node": (ETCD, 'etcd: {cluster: "context:a", nodeShell: remote}', 9, 45),
    "a cluster's bare name": ('"context:production"', "production", 11, 23),
    "a misspelt provider": ("context:production", "contxt:production", 11, 23),
    "a throwaway cluster": ('"context:production"', "kind", 11, 23),
    "kubeconfig of no context": ('cluster: "context:production"', 'cluster: "kind:a", kubeconfig: b', 11, 33),
    "namespace in and out": ("includedNamespaces: [shop]", "includedNamespaces: [shop], excludedNamespaces: [shop]", 11, 107),
    "misspelt volumes": ("includedNamespaces: [shop]", "volumes: filesystem", 11, 88),
    "source named twice": ("  - name: shop", "  - name: etcd", 10, 11),
    "location named twice": ("name: far", "name: near", 14, 12),
    "name of no folder": ("name: production", "name: Production", 4, 9),
    "five fields": ("30 3 * * *", "30 3 * *", 6, 20),
    "hour that is none": ("30 3 * * *", "30 25 * * *", 6, 20),
    "day that never is": ("30 3 * * *", "0 0 31 2 *", 6, 20),
    "last day of the month": ("30 3 * * *", "0 0 L * *", 6, 20),
    "step without a range": ("30 3 * * *", "5/15 3 * * *", 6, 20),
    "Sunday as 7": ("30 3 * * *", "30 3 * * 7", 6, 20),
    "unknown time zone": ("Europe/Berlin", "Europe/Brlin", 6, 44),
    "half a time zone": ("Europe/Berlin", "Europe", 6, 44),
    "a path as a time zone": ("Europe/Berlin", "/etc/localtime", 6, 44),
    "grace without a unit": ("timeZone: Europe/Berlin", "grace: 5", 6, 41),
    "no store": ('"s3://backups/all?region=eu-west-1"', "backups", 14, 22),
    "misspelt store": ("s3://backups/all?region=eu-west-1", "s4://backups", 14, 22),
    "misspelt setting of a store": ("?region=", "?regoin=", 14, 22),
    "store in memory": ("./backups", '"memory:"', 13, 23),
    "one place twice": ("s3://backups/all?region=eu-west-1", "./x/../backups", 14, 22),
    "one inside the other": ("s3://backups/all?region=eu-west-1", "./backups/more", 14, 22),
    "one around the other": ("s3://backups/all?region=eu-west-1", ".", 14, 22),
    "inside of Velero's": ("s3://velero/production", "s3://backups", 11, 53),
    "too many copies": ("  retention:", "  copies: 3\n  retention:", 15, 11),
    "no copies": ("  retention:", "  copies: 0\n  retention:", 15, 11),
    "retention of nothing": ("{daily: 14}", "{daily: 0, last: 0}", 15, 14),
    "age in words": ("{daily: 14}", "{maximumAge: 1 week}", 15, 27),
    "room in words": ("{daily: 14}", "{maximumBytes: 500GB}", 15, 29),
    "no room": ("{daily: 14}", "{maximumBytes: 0}", 15, 14),
    "no reader": ("    recipientsFile: readers.txt\n", "    identityFile: key.txt\n", 17, 5),
    "two ways to read": ("recipientsFile: readers.txt", "recipientsFile: readers.txt\n    passphraseEnv: P", 17, 5),
    "two passphrases": ("recipientsFile: readers.txt", "passphraseEnv: P\n    passphraseFile: p", 17, 5),
    "identity of a passphrase": ("recipientsFile: readers.txt", "passphraseEnv: P\n    identityEnv: I", 17, 5),
    "no recipient": ("recipientsFile: readers.txt", "recipients: [me]", 17, 18),
    "compression in words": ("  retention:", "  compression: gzip\n  retention:", 15, 16),
    "compression as a number": ("  retention:", "  compression: 3\n  retention:", 15, 16),
    "too much compression": ("  retention:", "  compression: {level: 22}\n  retention:", 15, 24),
    "proof of nothing": ("  retention:", "  proofs: [{name: p, drill: d.drill.yaml, source: ectd, every: 7d}]\n  retention:", 15, 51),
    "proof without an end": ("  retention:", "  proofs: [{name: p, drill: d.drill.yaml, source: etcd}]\n  retention:", 15, 12),
    "two ways to prove": ("  retention:", "  proofs: [{name: p, rehearse: {}, drill: d, source: etcd, every: 7d}]\n  retention:", 15, 12),
    "no way to prove": ("  retention:", "  proofs: [{name: p, source: etcd, every: 7d}]\n  retention:", 15, 12),
    "snapshot's option for a Velero backup": ("  retention:", "  proofs: [{name: p, rehearse: {prefix: /a}, source: shop, every: 7d}]\n  retention:", 15, 32),
    "unknown option of a rehearsal": ("  retention:", "  proofs: [{name: p, rehearse: {drill: d}, source: etcd, every: 7d}]\n  retention:", 15, 33),
    "unknown occasion": ("[failure, recovery]", "[failed]", 19, 39),
    "notification to nobody": (", urlEnv: OPS_URL", "", 19, 5),
    "an address in place": ("urlEnv: OPS_URL", "url: slack://a/b/c", 19, 17),
    "an address for a variable": ("urlEnv: OPS_URL", "urlEnv: slack://a/b/c", 19, 25),
    "an address for a file": ("heartbeat.url", "https://hc.example/x", 20, 24),
    "textfile that nobody reads": ("  retention:", "  metrics: {textfile: a.txt}\n  retention:", 15, 23),
    "a user in a URL": ("  retention:", '  metrics: {pushgateway: "http://a:b@c"}\n  retention:', 15, 26),
    "a value that is not there": ("  retention: {daily: 14}", "  retention:", 15, 3),
    "unknown variable": ("./backups", '"${env.BACKUP}"', 13, 23),
    "reference to a matrix": ("./backups", '"${matrix.place}"', 13, 23),
    "a boolean as a key": ("  retention:", "  yes: 1\n  retention:", 15, 3),
}  # fmt: skip
