"""The files that a user has: found, opened wherever they lie, and cut where text may be cut."""
