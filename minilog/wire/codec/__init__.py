"""The work on records as bytes: the compiled loop over them, compression, and the hash of keys.

Everybody may come in. May import: nothing of ``wire`` but the bounds. Begin with ``codec.py``.
"""
