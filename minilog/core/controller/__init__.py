"""What the controller decides: brokers that come and go, elections, ISR changes, topics, and who is
told.

One event at a time: decide, journal, replay, effects (R24). Come in by ``controller.py`` alone. May
import: ``core``'s shared modules and ``wire``. Nothing of ``core/broker`` or ``core/replication``.
Begin with ``controller.py``, then ``partition_change.py``.
"""
