"""Warm gangs: sets of ranks that run test after test, and the rule that decides what a test's outcome was."""
