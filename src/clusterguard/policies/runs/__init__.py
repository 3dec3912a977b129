"""A run of a policy: one cycle, part by part."""
