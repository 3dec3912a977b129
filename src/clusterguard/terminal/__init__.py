"""How it looks in a terminal, and in a log file: shared by the command line and the pytest plugin."""

from clusterguard.terminal.console import console_on, err, out, progress_sink

__all__ = ["console_on", "err", "out", "progress_sink"]
