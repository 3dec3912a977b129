"""Backup policies: what runs every night, and what is known of it in the morning.

A run in a program::

    policy = load_policy(Path("policy.yaml"), environ=os.environ)
    report = PolicyRunner(policy=policy, environ=os.environ).run()
    assert report.outcome == "ok"

Names here are loaded when they are asked for.
"""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
