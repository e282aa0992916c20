"""The coordinator of consumer groups: where groups meet a broker's turn, its log and its followers.

``core/groups`` decides about a group. Here it is decided which groups this broker may answer for,
when an answer may be shown, and who waits. Come in by ``coordinator.py`` alone. May import:
``core/groups``, ``core/replication``, ``lookup``, ``state`` and ``turn`` of ``core/broker``,
``wire``. Begin with ``coordinator.py``: ``on_request``, ``tick``.
"""
