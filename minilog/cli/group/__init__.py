"""``minilog group``: list, describe, move and delete consumer groups."""
