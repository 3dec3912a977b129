"""Those who look at a policy from outside: status, metrics, notifications, the audit trail."""
