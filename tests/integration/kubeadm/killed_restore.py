"""Restore a snapshot, and be killed by SIGKILL at the command that an argument names. A program, not a test."""

import os
import signal
import sys
import threading

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import open_store


def main(name, store, snapshot, point, delay):
    cluster = KindCluster.attach(name)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(command):
        if command.why.startswith(point):
            if not float(delay):
                die()
            threading.Timer(float(delay), die).start()

    class Target:
        etcd = cluster.etcd
        api = cluster.api
        control_plane = KubeadmControlPlane(
            [DockerNodeShell(each.name) for each in cluster.nodes if each.is_leader],
            workers=[DockerNodeShell(each.name) for each in cluster.nodes if not each.is_leader],
            api=lambda: cluster.api,
            on_command=watch,
        )

    Target.name = name
    EtcdSnapshotter(store=open_store(store), access=cluster.etcd).restore(snapshot, Target)


main(*sys.argv[1:])
