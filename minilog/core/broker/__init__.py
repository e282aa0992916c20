"""What one broker decides in a turn: requests, metadata, its standing with the controller, and what
follows from them.

``BrokerCore`` takes each event and ends each turn. The others are its parts and take in their
constructors what they use. Come in by ``broker.py`` alone. May import: ``core/replication``,
``core/groups``, ``core``'s shared modules and ``wire``. Begin with ``broker.py``: ``on_request``,
``on_response``, ``tick``, ``_finish``.
"""
