"""Sending: records into batches, batches to leaders, and one outcome for each record.

``accumulator.py`` and ``sequences.py`` are pure. ``sender.py`` is the engine. ``producer.py`` is
what applications hold. May import: ``connection``, ``values``, ``settings`` and ``minilog.wire``.
"""
