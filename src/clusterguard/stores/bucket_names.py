"""Names that a bucket can have: told before a server is asked, which answers a wrong one with whatever it likes.

Source of the rules: Amazon S3 User Guide, "General purpose bucket naming rules"; boto3 takes any of A-Z a-z 0-9 . _ -
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["check_bucket_name", "check_new_bucket_name"]

# Amazon let such names pass in us-east-1 until 2018, and other servers may still do.
_LENIENT: Final = re.compile(r"[A-Za-z0-9._-]{3,255}")
_STRICT: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS: Final = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


def check_bucket_name(name: str, *, endpoint: str = "", region: str = "") -> str:
    """Return the name of a bucket unchanged.

    Args:
        name: The name.
        endpoint: URL of a server that is not Amazon's, and that may have names of its own; empty for Amazon's.
        region: Amazon's region; empty where it is not known.

    Raises:
        ValueError: No bucket can have that name.
    """
    if endpoint or region in {"", "us-east-1"}:
        if not _LENIENT.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a bucket: 3 to 255 of letters, digits, `.`, `-` and `_`")
        return name
    return check_new_bucket_name(name)


def check_new_bucket_name(name: str) -> str:
    """Return the name of a bucket that is to be made unchanged.

    Raises:
        ValueError: No server of S3 makes such a bucket.
    """
    odd = ".." in name or ".-" in name or "-." in name or _ADDRESS.fullmatch(name)
    if odd or not _STRICT.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a bucket: 3 to 63 lower-case letters, digits, `-` and single `.`, "
            "with a letter or digit at both ends, and not like an IP address"
        )
    return name
