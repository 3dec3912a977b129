from clusterguard.clusters import Cluster as Cluster
from clusterguard.clusters import EmbeddedCluster as EmbeddedCluster
from clusterguard.clusters import ExistingCluster as ExistingCluster
from clusterguard.clusters import open_cluster as open_cluster
from clusterguard.drills import Drill as Drill
from clusterguard.drills import DrillRunner as DrillRunner
from clusterguard.drills import Verdict as Verdict
from clusterguard.drills import load_drill as load_drill
from clusterguard.errors import ClusterGuardError as ClusterGuardError
from clusterguard.errors import RestoreValidationError as RestoreValidationError
from clusterguard.etcd import EtcdSnapshotter as EtcdSnapshotter
from clusterguard.model.inventory import Inventory as Inventory
from clusterguard.model.inventory import Scope as Scope
from clusterguard.model.report import Finding as Finding
from clusterguard.model.report import ValidationReport as ValidationReport
from clusterguard.model.snapshot import Snapshot as Snapshot
from clusterguard.model.snapshot import VerifyReport as VerifyReport
from clusterguard.stores import ObjectStore as ObjectStore
from clusterguard.stores import open_store as open_store
from clusterguard.validate import RestoreValidator as RestoreValidator
from clusterguard.velero.client import VeleroClient as VeleroClient
from clusterguard.velero.options import BackupOptions as BackupOptions
from clusterguard.velero.options import RestoreOptions as RestoreOptions

__version__: str
