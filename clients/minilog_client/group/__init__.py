"""Reading as a member of a group: standing with the coordinator, what is owned, what may be
committed.

``membership.py``, ``holdings.py`` and ``progress.py`` are pure. ``share.py`` carries out what the
coordinator says, and ``group_consumer.py`` is what applications hold.
May import: ``consumer``, ``connection``, ``values``, ``settings`` and ``minilog.wire``.
"""
