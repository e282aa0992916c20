"""Connections that others open: accepted, bounded, read, answered.

Come in from the runtimes. May import: ``server``'s own modules, ``core``'s shared modules and
``wire``. Nothing of ``outbound``. Begin with ``listener.py``, then ``accepted_connection.py``.
"""
