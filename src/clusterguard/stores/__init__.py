"""Where bytes rest: a directory, an S3 bucket, or memory, behind one port.

`open_store` opens any of them by location. Importing this package does not load boto3: `S3Store` and
`S3Credentials` are imported when they are first used.
"""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
