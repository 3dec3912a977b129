"""``python -m clusterguard``."""

from clusterguard.cli.main import main

if __name__ == "__main__":
    main()
