"""Restore a backup into a throwaway control plane, and see whether it is all in there: `Rehearsal`."""
