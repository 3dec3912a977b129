"""Documents that people write: YAML files with positions, their models, and what is wrong in them, in plain words.

Drill files and policy files are both made of this.
"""
