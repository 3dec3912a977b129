"""The drills of many clusters, and one report."""
