"""What a broker tells Prometheus.

Comes in by ``metrics.py``: what the HTTP face counts as it answers, and the text of a scrape. What
the core knows of partitions and groups is read in slices, so that no scrape holds the loop. What
there is too much of is left out, the worst last, and counted.
May import: ``broker/ports.py``, the lag of groups, ``server``, ``core``, ``wire``.
Begin with ``metrics.py``.
"""
