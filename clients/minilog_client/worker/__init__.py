"""Loops around a consumer: try again, and put aside what cannot be handled.

``retries.py``, ``tries.py`` and ``dead_letter.py`` are pure. ``work.py`` has the loop, and
``blocking/work.py`` the same without ``await``."""
