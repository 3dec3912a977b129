"""What a restore must bring back, or must not: an object that was written at a known moment."""

import secrets

from clusterguard.errors import ResourceNotFoundError


def marker(api, name=""):
    """Write an object and return its name."""
    name = name or f"cg-{secrets.token_hex(4)}"
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
    return name


def is_there(api, name):
    """Return whether it is there."""
    try:
        api.get(api.resource("ConfigMap"), name, "default")
    except ResourceNotFoundError:
        return False
    return True
