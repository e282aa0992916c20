"""Compaction: which records of a key stay, and how cleaned segments take the place of the old ones.

Come in by ``cleaning_round.py``, which the broker's cleaner runs in a thread.
May import: ``storage/log``, ``storage/segment`` and ``wire``.
Begin with ``cleaning_round.py``, then ``rewrite.py`` (what stays).
"""
