"""S3 servers that live as long as a drill: a process of this machine, or a container that pods reach."""
