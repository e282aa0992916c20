"""Commands on the files of one machine: segments, strays, and a journal that is made anew.

Come in by ``cli/main.py``. May import: what ``cli`` may. Begin with ``log.py``.
"""
