"""Requests of clients in a broker: what one may bring, what is appended, what is read, who waits.

Come in from ``core/broker/broker.py``. May import: what ``core/broker`` may, but not ``standing``.
Begin with ``produce.py``, then ``fetch.py``.
"""
