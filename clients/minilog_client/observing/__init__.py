"""What a client tells of itself: events, and what is made of them: lines of the log, figures,
metrics of Prometheus and spans of OpenTelemetry.

Everybody tells by ``Teller.tell``, and one observer of the application hears of it. An event is of
a batch, a request or the group, never of a single record. Begin with ``events.py``.
May import: ``values``, ``settings`` and ``minilog.wire``. The extras are imported by nobody here.
"""
