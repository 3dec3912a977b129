"""Policy files: their format, how they are read, what is risky in them, and a first one."""
