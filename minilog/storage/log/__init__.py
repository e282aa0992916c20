"""One partition's log: segments in a row, what it knows of epochs and producers, and the one way to
lose records.

Come in by ``log.py``.
May import: ``storage/segment``, ``storage/disk.py``, ``storage/checkpoint.py`` and ``wire``.
Begin with ``log.py``, then ``stored_log.py`` and ``truncation.py``.
"""
