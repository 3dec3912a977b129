"""What runs a policy when nobody is there: cron, CI, Kubernetes."""
