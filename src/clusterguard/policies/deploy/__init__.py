"""What runs a policy unattended: cron, CI, Kubernetes."""
