from clusterguard.velero.client import VeleroClient as VeleroClient
from clusterguard.velero.install import InstallOptions as InstallOptions
from clusterguard.velero.locations import LocationSpec as LocationSpec
from clusterguard.velero.options import BackupOptions as BackupOptions
from clusterguard.velero.options import RestoreOptions as RestoreOptions
from clusterguard.velero.outcome import BackupOutcome as BackupOutcome
from clusterguard.velero.outcome import RestoreOutcome as RestoreOutcome
from clusterguard.velero.outcome import Rule as Rule
