"""What of a live cluster is protected, what is proven, and what is neither: a table, and why.

`look` reads the cluster, `gathering` policies and the evidence of drills, and `cover` puts all of it together.
Everything else is pure: `sources` decides which backups count, `takes` what each of them takes, `volumes` whose data is
in one, `proofs` what drills have shown; `table` is the answer.
"""
