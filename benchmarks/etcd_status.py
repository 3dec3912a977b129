"""How long one status of etcd takes over gRPC, beside the same through etcd's JSON gateway, in the same run.

    python benchmarks/etcd_status.py [--rounds 300]

A member that wants client certificates is asked in both ways alternately, by the classes that do it in earnest; the
answers must be equal. First on connections that stay, as most calls are made, then on a new one each time, TLS
handshake included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from save import Etcd

from clusterguard.clusters.base import EtcdAccess
from clusterguard.etcd import rpc
from clusterguard.etcd.gateway import JsonGateway
from clusterguard.etcd.grpc import GrpcChannel
from clusterguard.toolchain import from_environment

TARGET_RATIO = 1.0
WAYS = {"gRPC": GrpcChannel, "gateway": JsonGateway}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        etcd = Etcd(from_environment(os.environ).ensure("etcd")["etcd"], Path(scratch))
        try:
            access = EtcdAccess(endpoints=(etcd.endpoint,), ca=etcd.ca, cert=etcd.cert, key=etcd.key)
            kept = report("kept connection", *measure_kept(access, rounds))
            new = report("new connection", *measure_new(access, max(1, rounds // 10)))
        finally:
            etcd.process.stop(grace_seconds=0)
    return 0 if max(kept, new) <= TARGET_RATIO else 1


def measure_kept(access, rounds):
    channels = {name: kind(access, access.endpoints[0], timeout_seconds=10) for name, kind in WAYS.items()}
    assert len({str(status(each)) for each in channels.values()}) == 1
    times = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, channel in channels.items():
            times[name].append(timed(lambda channel=channel: status(channel)))
    for each in channels.values():
        each.close()
    return times.values()


def measure_new(access, rounds):
    times = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, kind in WAYS.items():

            def ask(kind=kind):
                channel = kind(access, access.endpoints[0], timeout_seconds=10)
                status(channel)
                channel.close()

            times[name].append(timed(ask))
    return times.values()


def status(channel):
    answer = channel.call(rpc.STATUS, {}, token=None)
    return {name: value for name, value in answer.items() if not name.startswith(("raft", "db"))}  # these move


def timed(act):
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def report(what, ours, reference):
    ratio = statistics.median(ours) / statistics.median(reference)
    for name, times in zip(WAYS, (ours, reference), strict=True):
        first, median, last = statistics.quantiles(times, n=4)
        print(f"{what:<16} {name:<8} {len(times):>4} calls  median {median:6.2f} ms  ({first:.2f} to {last:.2f})")
    print(f"{what:<16} ratio    {ratio:.2f}, target {TARGET_RATIO:.2f}")
    return ratio


if __name__ == "__main__":
    sys.exit(main())
