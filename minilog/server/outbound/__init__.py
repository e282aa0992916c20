"""Connections to other processes: names, dialling, and lanes by purpose.

Come in from the runtimes. May import: ``server``'s own modules, ``core``'s shared modules and
``wire``. Nothing of ``inbound``. Begin with ``peers.py``, then ``peer_lane.py``.
"""
