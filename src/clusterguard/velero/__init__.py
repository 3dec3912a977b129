"""Velero: back up, verify in the bucket, restore."""
