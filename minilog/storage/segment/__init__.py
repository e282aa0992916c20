"""One stretch of a log in one file, with the sparse indexes that lead into it.

Every byte that leaves is checked against its checksum and its place.
Come in from ``storage/log``, ``storage/compaction`` and ``storage/recovery``.
May import: ``storage/disk.py`` and ``wire``.
Begin with ``segment.py``, then ``reading.py`` and ``scan.py``. What damage is says ``damage.py``.
"""
