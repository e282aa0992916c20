"""Topics, the cluster and groups: questions and changes that are not records.

May import: ``connection``, ``values``, ``settings`` and ``minilog.wire``.
"""
