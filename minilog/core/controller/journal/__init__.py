"""One step of the journal: how it is put together, and which records and values may be in it.

Come in from ``controller.py``, ``journal_recovery.py`` from ``minilog controller recover``. May
import: ``core``'s shared modules and ``wire``. Begin with ``metadata_draft.py``.
"""
