"""Servers of other libraries that do the same."""
