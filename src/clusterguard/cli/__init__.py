"""The command line: one file for each noun, and no logic of its own."""
