"""What people are told of the controller's steps: events, failovers, lost records, descriptions.

Nothing is decided by it, but for who may write lost records again. Come in from ``controller.py``.
May import: ``core``'s shared modules and ``wire``. Begin with ``events.py``.
"""
