"""How time and memory grow with the size: save, verify and restore of etcd, capture and comparison of objects.

    python benchmarks/scale.py measure [--megabytes 10 100 800 4000] [--objects 1000 10000 100000] [--rounds 3]
    uv run --with matplotlib python benchmarks/scale.py draw

Two steps, so that the pictures can be drawn again without measuring. `measure` runs the commands that people run,
each as a process of its own, on embedded clusters: one whose etcd is filled beside what the API server reads, since
the objects there would be its work and not ours, and one that is filled with ConfigMaps and Secrets. What it finds
replaces what `figures.csv` has for the same operation and size. `draw` needs matplotlib and nothing of this project;
it makes the pictures of `docs/explanation/scale.md`, and prints for each operation the straight line that fits best,
and whether time is linear and memory flat.

Seconds of processors and the peak of memory are those of the process alone; what etcdutl takes, which a restore
runs, is told apart. `kubectl` and `etcdctl` are measured beside, once for each round.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "explanation" / "scale"
FIGURES = FOLDER / "figures.csv"
OPERATIONS = {"database": ("save", "verify", "restore"), "objects": ("capture", "compare")}
VALUE_BYTES = 1024
LARGE = 2_000  # MB; from here on one round is enough to wait for
LINEAR = 0.25  # no size may be farther from the line than this part of its own time
FLAT = 1.25  # times the memory of the second size; for the smallest, not everything is loaded

COMMAND = """
import atexit, json, resource, sys
from pathlib import Path

def tell(file):
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # ru_maxrss would begin with what the parent had; this is of the program alone.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    figures = {"processor": own.ru_utime + own.ru_stime, "others": others.ru_utime + others.ru_stime}
    file.write_text(json.dumps({**figures, "mib": int(peak.split()[1]) / 1024}))

atexit.register(tell, Path(sys.argv.pop(1)))
sys.argv[0] = "clusterguard"
from clusterguard.__main__ import main
main()
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One run: size in MB or objects, seconds by the clock, of its processor, of what it ran, and the load before."""

    operation: str
    size: float
    seconds: float
    processor: float
    others: float
    mib: float
    load: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line ``fixed + slope * size``, and how far the worst point is from it, in parts of that point."""

    fixed: float
    slope: float
    off: float

    @property
    def linear(self) -> bool:
        return self.off <= LINEAR


def fit(points: dict[float, float]) -> Line:
    """Return the line that is nearest in parts of each point, so that the largest does not decide alone."""
    weights = {size: value**-2 for size, value in points.items()}
    total = sum(weights.values())
    mean_size = sum(weight * size for size, weight in weights.items()) / total
    mean = sum(weight * points[size] for size, weight in weights.items()) / total
    spread = sum(weight * (size - mean_size) ** 2 for size, weight in weights.items())
    slope = sum(weight * (size - mean_size) * (points[size] - mean) for size, weight in weights.items()) / spread
    fixed = mean - slope * mean_size
    off = max(abs(fixed + slope * size - value) / value for size, value in points.items())
    return Line(fixed=fixed, slope=slope, off=off)


def flat(points: dict[float, float]) -> bool:
    """Return whether memory stays what it is for the second size, or nearly."""
    _, second, *more = (points[size] for size in sorted(points))
    return max(more) <= FLAT * second


def medians(figures: list[Figure], field: str) -> dict[str, dict[float, float]]:
    """Return the median of each size, for each operation."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in figures:
        found[each.operation][each.size].append(getattr(each, field))
    return {
        operation: {size: statistics.median(values) for size, values in sorted(sizes.items())}
        for operation, sizes in found.items()
    }


# ---- measuring -------------------------------------------------------------------------------------------


class Measurements:
    """Runs commands, and keeps what they took in the file after each, so that nothing is lost half-way."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._new: list[Figure] = []

    def ours(self, operation: str, size: float, *words: object) -> None:
        told = self._scratch / "figures.json"
        told.unlink(missing_ok=True)
        load = os.getloadavg()[0]
        began = time.perf_counter()
        self._run(operation, [sys.executable, "-c", COMMAND, str(told), *map(str, words)])
        seconds = time.perf_counter() - began
        self._keep(Figure(operation=operation, size=size, seconds=seconds, load=load, **json.loads(told.read_text())))

    def beside(self, operation: str, size: float, *words: object) -> None:
        """Measure the time of another program; its memory, as the kernel has it, would begin with ours."""
        load = os.getloadavg()[0]
        began = time.perf_counter()
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{operation} failed with exit code {process.returncode}")
        took = {"seconds": seconds, "processor": usage.ru_utime + usage.ru_stime, "mib": 0.0}
        self._keep(Figure(operation=operation, size=size, others=0, load=load, **took))

    def _run(self, operation: str, argv: list[str]) -> None:
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{operation} failed with exit code {done.returncode}:\n{done.stdout[-999:]}{done.stderr[-2000:]}")

    def _keep(self, figure: Figure) -> None:
        rounded = {name: round(value, 3) for name, value in asdict(figure).items() if name != "operation"}
        self._new.append(Figure(operation=figure.operation, **rounded))
        print(*(f"{name} {value}" for name, value in asdict(self._new[-1]).items()), sep=", ", flush=True)
        again = {(each.operation, each.size) for each in self._new}
        write([*(each for each in read() if (each.operation, each.size) not in again), *self._new])


def read() -> list[Figure]:
    if not FIGURES.is_file():
        return []
    with FIGURES.open(newline="") as file:
        return [
            Figure(operation=row.pop("operation"), **{name: float(text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


def write(figures: list[Figure]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with FIGURES.open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Figure)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in sorted(figures, key=lambda each: (each.operation, each.size)))


def measure_databases(megabytes: list[int], rounds: int, scratch: Path) -> None:
    from verify import Member, fill

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import from_environment

    etcdctl = from_environment(os.environ).ensure("etcdctl")["etcdctl"]
    taken = Measurements(scratch)
    store, theirs = scratch / "store", scratch / "etcdctl.db"
    with EmbeddedCluster(outlive_us=True) as cluster:
        access, keys = cluster.etcd, 0
        etcd = Member.of(access, prefix="/filling")  # where no API server looks
        reach = [f"--endpoints={access.endpoints[0]}", f"--cacert={access.ca}", f"--cert={access.cert}"]
        reach += [f"--key={access.key}"]
        for size in sorted(megabytes):
            keys = fill(etcd, size, VALUE_BYTES, keys=keys)
            real = round(etcd.db_size() / 1e6)
            for number in range(1 if size >= LARGE else rounds):
                name = f"of-{size}-{number}"
                taken.beside("etcdctl snapshot save", real, etcdctl, *reach, "snapshot", "save", theirs)
                theirs.unlink()
                taken.ours("save", real, "etcd", "save", name, "--store", store, *reach)
                taken.ours("verify", real, "etcd", "verify", name, "--store", store)
                where = ["--cluster", f"embedded:{cluster.name}", "--yes"]
                taken.ours("restore", real, "etcd", "restore", name, "--store", store, *where)
                shutil.rmtree(store)
            etcd.connection.close()  # of the etcd before the restore


def measure_objects(counts: list[int], rounds: int, scratch: Path) -> None:
    from capture import fill

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import from_environment

    kubectl = from_environment(os.environ).ensure("kubectl")["kubectl"]
    taken = Measurements(scratch)
    with EmbeddedCluster(outlive_us=True) as cluster:
        file, there = scratch / "inventory", 0
        where = ["--cluster", f"kubeconfig:{cluster.kubeconfig}"]
        get = [kubectl, "--kubeconfig", cluster.kubeconfig, "get", "configmaps,secrets", "-A", "-o", "json"]
        for count in sorted(counts):
            fill(cluster, count, there=there)
            there = count
            for _ in range(rounds):
                taken.beside("kubectl get -o json", count, *get)
                taken.ours("capture", count, "inventory", "capture", file, *where)
                taken.ours("compare", count, "inventory", "compare", file, *where)


# ---- drawing ---------------------------------------------------------------------------------------------


def measured(operations: tuple[str, ...], figures: list[Figure]) -> list[str]:
    """Return the operations that a line can be drawn for."""
    sizes = medians(figures, "seconds")
    return [operation for operation in operations if len(sizes.get(operation, ())) > 2]


def report(figures: list[Figure]) -> None:
    """Print what a line through the medians says, by the clock and by processor time, and whether memory is flat."""
    clock, processor, memory = (medians(figures, field) for field in ("seconds", "processor", "mib"))
    for unit, step, operations in (("MB", 100, OPERATIONS["database"]), ("objects", 10_000, OPERATIONS["objects"])):
        for operation in measured(operations, figures):
            print(operation)
            for name, values in (("by the clock", clock), ("of processors", processor)):
                line = fit(values[operation])
                verdict = "linear" if line.linear else "NOT LINEAR"
                print(f"  {line.fixed:5.2f} s and {line.slope * step:6.3f} s for {step:,} {unit} {name}: {verdict}, "
                      f"every size within {line.off:.0%}")  # fmt: skip
            peaks = memory[operation]
            each = (peaks[max(peaks)] - peaks[min(peaks)]) / (max(peaks) - min(peaks)) * step
            verdict = "flat" if flat(peaks) else "NOT FLAT"
            print(f"  {min(peaks.values()):.0f} to {max(peaks.values()):.0f} MiB, {each:.2f} MiB for {step:,} {unit}: "
                  f"{verdict}")  # fmt: skip


COLOURS = {"save": "#3b82c4", "verify": "#2e9e6b", "restore": "#d9762b", "capture": "#3b82c4", "compare": "#d9762b"}
GREY = "#808890"  # like the colours, readable on white and on black


def draw(figures: list[Figure]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "scale", "font.family": "sans-serif", "font.size": 10,
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.labelcolor": GREY,
    })  # fmt: skip
    for what, unit in (("database", "MB"), ("objects", "objects")):
        if operations := measured(OPERATIONS[what], figures):
            picture(what, unit, operations, figures)


def picture(what: str, unit: str, operations: list[str], figures: list[Figure]) -> None:
    """Draw time and memory side by side: dots are runs, lines the straight ones that fit (curved by the log scale)."""
    from matplotlib.figure import Figure as Drawing
    from matplotlib.ticker import FuncFormatter, NullLocator

    drawing = Drawing(figsize=(9, 3.6), layout="constrained")
    time_axes, memory_axes = drawing.subplots(1, 2)
    sizes = sorted({each.size for each in figures if each.operation in operations})
    processor = medians(figures, "processor")
    memory = medians(figures, "mib")
    for operation in operations:
        runs = [each for each in figures if each.operation == operation]
        colour = COLOURS[operation]
        line = fit(processor[operation])
        along = [sizes[0] * (sizes[-1] / sizes[0]) ** (step / 12) for step in range(13)]
        time_axes.plot(along, [line.fixed + line.slope * size for size in along], color=colour, linewidth=1)
        time_axes.plot([each.size for each in runs], [each.processor for each in runs], "o", color=colour, markersize=5,
                       label=operation)  # fmt: skip
        time_axes.plot([each.size for each in runs], [each.seconds for each in runs], "x", color=colour, markersize=5)
        memory_axes.plot(*zip(*memory[operation].items(), strict=True), "o-", color=colour, markersize=5, linewidth=1)
    time_axes.set(xscale="log", yscale="log", title="seconds (● of processors, x by the clock)")
    memory_axes.set(xscale="log", ylim=(0, None), title="most memory, MiB")
    time_axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    time_axes.legend(loc="lower right")
    for axes in (time_axes, memory_axes):
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        axes.set_xlabel(unit)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes.title.set_fontsize(10)
    drawing.savefig(FOLDER / f"{what}.svg", transparent=True, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("measure", "draw"))
    parser.add_argument("--megabytes", type=int, nargs="*", default=[10, 100, 800, 4000], help="databases; may be none")
    parser.add_argument("--objects", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="may be none")
    parser.add_argument("--rounds", type=int, default=3, help="runs at each size (one from 2 GB on)")
    parser.add_argument("--folder", type=Path, help="where snapshots are written (default: a temporary folder)")
    options = parser.parse_args()
    if options.step == "draw":
        report(read())
        draw(read())
        return
    # etcd reads its flags from variables, too: a cluster takes no more than 2 GB unless it is told, nor do ours.
    os.environ.update({"ETCD_QUOTA_BACKEND_BYTES": str(16 << 30), "ETCD_MAX_TXN_OPS": "10000"})
    os.environ["ETCD_MAX_REQUEST_BYTES"] = "10000000"
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as scratch:
        if options.megabytes:
            measure_databases(options.megabytes, options.rounds, Path(scratch))
        if options.objects:
            measure_objects(options.objects, options.rounds, Path(scratch))


if __name__ == "__main__":
    main()
