"""After a start: what of a log is whole, what was torn by a power cut, and what is damage that must
be said.

Come in by ``recovery.py``.
May import: ``storage/log``, ``storage/segment`` and ``wire``.
Begin with ``recovery.py``, then ``torn_tail.py``.
"""
