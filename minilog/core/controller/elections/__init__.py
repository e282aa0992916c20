"""Leaders and in-sync replicas: who leads after a change, and which proposals of leaders hold.

Come in from ``controller.py``. May import: ``core``'s shared modules and ``wire``. Begin with
``partition_change.py`` (one change, pure), then ``election.py``.
"""
