"""Storms: many provisioners on several hosts, killed, stopped, starved and lied to.  See docs/storms.md."""
