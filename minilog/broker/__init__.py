"""The shell of a broker: performs what ``core/broker`` has decided, and serves HTTP.

``Runtime`` is the only caller of ``BrokerCore``: one event in, its effects performed in order.
Come in by ``main.py``.
May import: ``server``, ``core``, ``storage``, ``wire``.
Begin with ``runtime.py``, then ``http/native.py`` (the hot path).
"""
