"""Routes of records: produce, fetch, pages, receipts, lost records, and the native protocol.

Come in by ``broker/http/server.py``. May import: what ``broker/http`` may. Begin with
``native.py``, then ``produce.py``.
"""
