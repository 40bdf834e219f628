"""What is found, as text for people and as JSON for machines.  Pure: every function returns a string."""
