from clusterguard.policies.copies.places import Place as Place
from clusterguard.policies.copies.places import open_places as open_places
from clusterguard.policies.copies.places import read_catalogs as read_catalogs
from clusterguard.policies.files.load import load_policy as load_policy
from clusterguard.policies.runs.run import PolicyRunner as PolicyRunner
from clusterguard.policies.watching.audit import AuditTrail as AuditTrail
from clusterguard.policies.watching.status import policy_status as policy_status
