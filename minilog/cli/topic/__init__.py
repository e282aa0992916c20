"""``minilog topic``: make, list, write to, read from, follow."""
