"""``minilog cluster``, ``partition`` and ``receipt``: questions about a cluster that runs.

Come in by ``cli/main.py``. May import: what ``cli`` may. Begin with ``cluster.py``.
"""
