"""Starting ranks: each launcher computes its command, `job` starts it, `bootstrap` is what every rank runs."""
