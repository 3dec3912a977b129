"""``python -m clusterguard``, and what the command `clusterguard` calls."""

import sys
import traceback

__all__ = ["main"]


def main() -> None:
    """Run the command line; an installation that is broken ends with 2, as whatever else could not tell."""
    try:
        from clusterguard.cli.main import main as run
    except Exception:  # noqa: BLE001 - this is the door: Python's own exit code would be 1, a verdict
        traceback.print_exc()
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
