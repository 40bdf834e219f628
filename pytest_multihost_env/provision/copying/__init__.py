"""The part of a copy that is done by workers.  Standard library only, and nothing of ours outside this directory.

A worker on a fast disk is a process of its own, which imports this directory as the package `copying`.
"""
