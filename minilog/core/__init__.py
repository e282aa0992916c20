"""Decisions: what a broker and a controller do about each event, as plain synchronous code without
clock, files or network.

``core/X`` decides, ``X/`` performs. An event comes in with the time of its turn; effects come out
(``effects.py``). Come in by ``broker/broker.py`` and ``controller/controller.py``. ``ports.py``
says what core wants of a log and a store. May import: ``wire``. What both sides share lies here:
the metadata as a value (``image.py``), the effects, the ports. Begin with ``effects.py``, then
``replication/leader.py``.
"""
