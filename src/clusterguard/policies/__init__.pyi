from clusterguard.policies.copies.locations import StorageLocation as StorageLocation
from clusterguard.policies.copies.locations import open_locations as open_locations
from clusterguard.policies.copies.locations import read_catalogs as read_catalogs
from clusterguard.policies.files.load import load_policy as load_policy
from clusterguard.policies.runs.run import PolicyRunner as PolicyRunner
from clusterguard.policies.watching.audit import AuditTrail as AuditTrail
from clusterguard.policies.watching.status import policy_status as policy_status
