"""What a leader and its followers decide about one partition: positions, ISR, high watermark, log
start.

``Replica`` is one partition here, in the role of ``LeaderState`` or ``FollowerState``. Come in from
``core/broker``, which turns events into calls of these. May import: ``core``'s shared modules and
``wire``. Nothing of ``core/broker``, ``core/controller`` or ``core/groups``. Begin with ``isr.py``
(the arithmetic of commitment), then ``leader.py``.
"""
