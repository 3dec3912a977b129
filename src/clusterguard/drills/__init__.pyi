from clusterguard.drills.load import Drill as Drill
from clusterguard.drills.load import LoadedStep as LoadedStep
from clusterguard.drills.load import load_drill as load_drill
from clusterguard.drills.load import load_drills as load_drills
from clusterguard.drills.run import DrillSettings as DrillSettings
from clusterguard.drills.runner import DrillRunner as DrillRunner
from clusterguard.drills.verdict import DrillResult as DrillResult
from clusterguard.drills.verdict import Verdict as Verdict
