"""A first drill of somebody's own namespace: looked at, written down with a stand-in, and never touched."""
