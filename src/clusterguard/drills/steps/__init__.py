"""The verbs of drills, a module for each: its keys, what it needs, its words in the plan, and what it does.

To add one, write a module here with a subclass of `base.Action`, such as `scale`: `registry` finds it, and the schema,
the plan and the runner with it. Tests ask for its line in docs/reference/drill-files.md, and for the JSON Schema beside
that, written again by `clusterguard drill schema`. Not verbs, but what several share: `base`, `containers`, `fields`,
`judged`, `nodes`, `registry`, `scope`, `selection`, `velero_selection`.
"""
