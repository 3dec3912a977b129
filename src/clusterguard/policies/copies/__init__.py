"""What lies in the locations of a policy, and how it is opened."""
