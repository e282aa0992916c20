"""The shell of a controller: performs what ``core/controller`` has decided, its journal first.

``Runtime`` is the only caller of ``ControllerCore``: one event at a time, in the order of receipt.
Come in by ``main.py``.
May import: ``server``, ``core``, ``storage`` (disk and checkpoint), ``wire``. Never ``broker``.
Begin with ``runtime.py``, then ``journal.py``.
"""
