"""Brokers as the controller knows them: who registers, who lives, who is fenced, who was told what.

Come in from ``controller.py``. May import: ``core``'s shared modules, ``wire``, and of the
neighbours the draft and the changes of partitions. Begin with ``broker_sessions.py``.
"""
