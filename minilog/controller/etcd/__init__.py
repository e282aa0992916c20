"""The shared journal's shell: what ``core/controller/shared`` decides, carried out in etcd.

``main.py`` and the commands come in, by ``journal.py``. May import what the controller may.
Everything here blocks and is called in threads. Begin with ``journal.py``, then ``gateway.py``.
"""
