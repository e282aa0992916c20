"""Reading as a member of a group: standing with the coordinator, what is owned, what may be committed.

``membership.py`` and ``holdings.py`` are pure; ``group_consumer.py`` is what applications hold.
May import: ``consumer``, ``connection``, ``values``, ``settings`` and ``minilog.wire``.
"""
