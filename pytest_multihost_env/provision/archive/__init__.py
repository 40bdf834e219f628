"""Reads a packed environment and trusts nothing in it: `stream` decompresses, `tar` reads, `unpack` writes."""
