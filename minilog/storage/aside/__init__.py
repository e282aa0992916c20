"""What was put aside on a disk: lost logs, lost tails, strays, and what waits to be unlinked.

Come in from ``storage/store.py`` and the broker's shell. May import: ``storage``'s lower modules
and ``wire``. Begin with ``lost_tails.py``.
"""
