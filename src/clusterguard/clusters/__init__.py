"""Where Kubernetes runs: embedded child processes, containers of kind, or any cluster that a kubeconfig reaches."""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
