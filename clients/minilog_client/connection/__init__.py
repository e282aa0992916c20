"""Between a client and the brokers: requests, who leads what, when to try again, and the loop's
tasks.

Decides nothing about records. All other rooms may come in.
May import: ``settings``, ``values`` and ``minilog.wire``.
Begin with ``cluster.py``, then ``routing.py`` (pure).
"""
