"""What consumer groups decide: members, who owns which partition, committed offsets. Records out,
nothing else changes.

Come in by ``groups.py``. ``core/broker/coordinator/coordinator.py`` is where groups meet the turn
of a broker. May import: ``wire``. Begin with ``groups.py`` (``decide``, ``applied``, ``tick``),
then ``membership.py`` (one step of one group).
"""
