"""Files: the logs of one broker and what belongs to them, through one seam (``disk.py``) that a
test can replace.

``Store`` is a data directory and hands out ``PartitionLog``. Come in by ``store.py`` and
``inspect.py``. The order is store, recovery, compaction, log, segment, disk. May import: ``wire``.
Never ``core``: it satisfies ``core/ports.py`` by shape. Begin with ``log/log.py``, then
``recovery/recovery.py``.
"""
