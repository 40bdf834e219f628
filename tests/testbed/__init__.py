"""Several hosts on one machine: real sshds, real mounts, real faults, from namespaces.  See docs/testbed.md."""
