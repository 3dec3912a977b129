"""The verbs of drills, a module for each: its keys, what it needs, its words in the plan, and what it does."""
