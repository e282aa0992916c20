"""Routes of consumer groups, and the way to the broker that coordinates a group.

Come in by ``broker/http/server.py``. May import: what ``broker/http`` may. Begin with
``groups.py``.
"""
