"""Defects: silent faults that are put into a restored cluster one at a time, to see whether a drill finds them."""
