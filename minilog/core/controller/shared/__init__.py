"""The journal that several controllers share, kept in etcd: which transaction comes next, and what
its answer means.

Nothing here speaks to etcd. ``controller/etcd`` carries the transactions out, and in the simulator
a model of etcd does. Who holds the *term* may write: every write compares it (R120).
May import: ``core``'s shared modules and ``wire``. Begin with ``transaction.py``, then
``fence.py``.
"""
