"""Reading partitions: what to ask whom for, ahead of the application, and records one by one.

``fetch_plan.py`` and ``partition_fetch.py`` are pure, ``pump.py`` sends. ``consumer.py`` is what
applications hold.
May import: ``connection``, ``values``, ``settings`` and ``minilog.wire``.
"""
