"""This process's standing with the controller: registration, heartbeats, and all that they carry.

Come in from ``core/broker/broker.py``. May import: what ``core/broker`` may. Begin with
``registration.py``.
"""
