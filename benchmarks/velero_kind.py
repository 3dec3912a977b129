"""How long it takes to lose a kind cluster and have its volumes back in a new one, beside the raw tools by hand.

    python benchmarks/velero_kind.py [--rounds 1] [--volumes move]

raw      `kind create cluster`, `velero install --use-node-agent --wait`, `kubectl apply`, `kubectl rollout status`,
         data written by `kubectl exec`, `velero backup create --wait`, `kind delete cluster`, the same creation and
         installation again, a look every half second until the new server knows the backup, `velero restore create
         --wait`, `kubectl wait`, checksums compared by `kubectl exec`, `kind delete cluster`
ours     the shipped drill velero-volume-new-cluster with its second cluster in `setup`, so that it starts while the
         first one works; on top of the same: both markers, red before green, the backup verified in the bucket, and
         every object compared
shipped  the same drill as it is: its second cluster is created after the disaster, and counts as recovery time

With `--volumes move` the drill is velero-moved-new-cluster, and by hand a CSI driver (CLUSTERGUARD_CSI_MANIFESTS) is
applied to both clusters and waited for, Velero installed with `--features=EnableCSI`, and the backup made with
`--snapshot-move-data`.

All begin without any cluster and end with none. The S3 server is a container of the same image. Needs Docker; the
images are those that a drill takes (CLUSTERGUARD_KIND_IMAGE and the like).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills
from clusterguard.drills.csi_driver import VARIABLE, driver_manifests, names_driver
from clusterguard.drills.servers.container_s3 import ContainerS3Server
from clusterguard.toolchain import from_environment

TARGET_RATIO = 1.0
DRILLS = Path(__file__).parents[1] / "drills"
DRILL = {
    "fileSystem": "velero-volume-new-cluster.drill.yaml",
    "move": "velero-moved-new-cluster.drill.yaml",
}
BACK_UP = {"fileSystem": "--default-volumes-to-fs-backup", "move": "--snapshot-move-data"}
NAMES = ("benchmark-source", "benchmark-target")
BUCKET = "benchmark"
VELERO = os.environ.get("CLUSTERGUARD_VELERO_IMAGE")
PLUGIN = os.environ.get("CLUSTERGUARD_VELERO_AWS_IMAGE", "velero/velero-plugin-for-aws:v1.14.3")
SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--volumes", choices=DRILL, default="fileSystem")
    asked = parser.parse_args()
    if asked.volumes == "move" and not names_driver():
        raise SystemExit(f"{VARIABLE} names no CSI driver")
    drill = DRILLS / DRILL[asked.volumes]
    programs = from_environment(os.environ).ensure("kind", "kubectl", "velero")
    phases = {"raw": defaultdict(list), "ours": defaultdict(list), "shipped": defaultdict(list)}
    totals = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        warm = copy_of_the_drill(drill, Path(folder))
        for round_ in range(asked.rounds):
            ways = {
                "raw": lambda: by_hand(programs, Path(folder), phases["raw"], asked.volumes),
                "ours": lambda: by_drill(warm, phases["ours"]),
                "shipped": lambda: by_drill(drill, phases["shipped"]),
            }
            for way in ways if round_ % 2 == 0 else reversed(ways):
                began = time.perf_counter()
                ways[way]()
                totals[way].append(time.perf_counter() - began)
                print(f"round {round_ + 1}: {way:8}{totals[way][-1]:7.1f} s", flush=True)
    tell(phases, totals)


def copy_of_the_drill(drill: Path, folder: Path) -> Path:
    shutil.copytree(DRILLS / "manifests", folder / "manifests")
    text = drill.read_text()
    assert "target: {startIn: restore}" in text
    (folder / drill.name).write_text(text.replace("target: {startIn: restore}", "target: {}"))
    return folder / drill.name


def by_drill(path: Path, phases) -> None:
    (drill,) = load_drills(path)
    result = DrillRunner(settings=DrillSettings(cluster="kind")).run(drill)
    assert result.verdict is Verdict.PASS, result
    for phase in result.phases:
        phases[phase.name].append(phase.seconds)
    phases["(recovery time)"].append(result.rto.total)


def by_hand(programs, folder: Path, phases, volumes: str) -> None:
    source, target = NAMES
    with ContainerS3Server(network="kind") as s3, contextlib.ExitStack() as stack:
        s3.create_bucket(BUCKET)
        credentials = folder / "credentials"
        credentials.write_text(s3.credentials_file())
        for name in NAMES:
            stack.callback(subprocess.run, [programs["kind"], "delete", "cluster", "--name", name], capture_output=True)
        tools = Tools(programs, folder, phases, csi=volumes == "move")
        with tools.on("create the first cluster"):
            tools.create(source)
        with tools.on("install Velero in it"):
            tools.install(source, s3, credentials)
        with tools.on("the application and its data"):
            tools.kubectl(source, "apply", "-f", DRILLS / "manifests" / "shop-data.yaml")
            tools.kubectl(source, "-n", "shop", "rollout", "status", "statefulset/web", "--timeout=240s")
            write = "head -c 4194304 /dev/urandom > /data/orders.bin; echo open > /data/index.html; sync"
            tools.kubectl(source, "-n", "shop", "exec", "web-0", "--", "sh", "-c", write)
            before = tools.checksums(source)
        with tools.on("back up"):
            options = ("--include-namespaces", "shop", BACK_UP[volumes], "--wait")
            assert "Completed" in tools.velero(source, "backup", "create", "shop", *options)
        with tools.on("lose the first cluster"):
            tools.run("kind", "delete", "cluster", "--name", source)
        with tools.on("create the second cluster"):
            tools.create(target)
        with tools.on("install Velero in it, too"):
            tools.install(target, s3, credentials)
        with tools.on("wait until Velero sees the backup"):
            tools.wait(lambda: "Completed" in tools.velero(target, "backup", "get", "shop", check=False))
        with tools.on("restore"):
            assert "Completed" in tools.velero(target, "restore", "create", "--from-backup", "shop", "--wait")
        with tools.on("see it work, compare every byte"):
            ready = ("wait", "pod/web-0", "--for=condition=Ready", "--timeout=240s")
            tools.kubectl(target, "-n", "shop", *ready)
            assert tools.checksums(target) == before


class Tools:
    """The raw programs, with the time that each part took."""

    def __init__(self, programs, folder: Path, phases, *, csi: bool) -> None:
        self.programs, self.folder, self.phases, self.csi = programs, folder, phases, csi

    @contextlib.contextmanager
    def on(self, what: str):
        began = time.perf_counter()
        yield
        self.phases[what].append(time.perf_counter() - began)

    def run(self, program: str, *words, check: bool = True) -> str:
        argv = [str(self.programs[program]), *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
        if check and done.returncode:
            raise SystemExit(
                f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def kubectl(self, cluster: str, *words) -> str:
        return self.run("kubectl", "--kubeconfig", self.folder / cluster, *words)

    def velero(self, cluster: str, *words, check: bool = True) -> str:
        return self.run("velero", "--kubeconfig", self.folder / cluster, *words, check=check)

    def create(self, name: str) -> None:
        image = os.environ.get("CLUSTERGUARD_KIND_IMAGE")
        chosen = ("--image", image) if image else ()
        kubeconfig = ("--kubeconfig", self.folder / name)
        self.run("kind", "create", "cluster", "--name", name, "--wait", "3m", *kubeconfig, *chosen)
        if self.csi:
            self.install_driver(name)

    def install_driver(self, cluster: str) -> None:
        # In two files, definitions first: what is of them cannot be applied before they are served.
        kinds = {"definitions": [], "driver": []}
        for each in driver_manifests():
            kinds["definitions" if each["kind"] == "CustomResourceDefinition" else "driver"].append(each)
        for name, found in kinds.items():
            file = self.folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump_all(found))
            self.kubectl(cluster, "apply", "--server-side", "-f", file)
            if name == "definitions":
                self.kubectl(cluster, "wait", "--for=condition=Established", "-f", file, "--timeout=60s")
        self.kubectl(cluster, "wait", "--for=condition=Available", "deployment", "--all", "-A", "--timeout=180s")

    def install(self, cluster: str, s3, credentials: Path) -> None:
        config = f"region={s3.region},s3ForcePathStyle=true,s3Url={s3.endpoint_for_pods}"
        image = ("--image", VELERO) if VELERO else ()
        features = ("--features=EnableCSI",) if self.csi else ()
        options = ("--use-node-agent", "--secret-file", credentials, "--backup-location-config", config, "--wait")
        provider = ("--provider", "aws", "--plugins", PLUGIN, "--bucket", BUCKET, "--use-volume-snapshots=false")
        self.velero(cluster, "install", *provider, *options, *image, *features)

    def checksums(self, cluster: str) -> str:
        # .velero is what its restore leaves behind: the sign that the files are there.
        look = "cd /data && find . -type f -not -path './.velero/*' -exec sha256sum {} + | sort -k 2"
        return self.kubectl(cluster, "-n", "shop", "exec", "web-0", "-c", "web", "--", "sh", "-c", look)

    def wait(self, until) -> None:
        deadline = time.monotonic() + SECONDS
        while not until():
            if time.monotonic() > deadline:
                raise SystemExit("it takes too long")
            time.sleep(0.5)


def tell(phases, totals) -> None:
    for way, spent in phases.items():
        print(f"\n{way}")
        for what, seconds in spent.items():
            print(f"  {what:36}{statistics.median(seconds):7.1f} s")
        print(f"  {'in all':36}{statistics.median(totals[way]):7.1f} s")
    raw = statistics.median(totals["raw"])
    ratios = {way: statistics.median(totals[way]) / raw for way in ("ours", "shipped")}
    print(f"\nratio {ratios['ours']:.2f} (target {TARGET_RATIO}); as shipped {ratios['shipped']:.2f}")
    sys.exit(0 if ratios["ours"] <= TARGET_RATIO else 1)


if __name__ == "__main__":
    main()
