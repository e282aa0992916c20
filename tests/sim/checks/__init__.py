"""What must hold after every event, and what really happened. Begin with ``invariants.py``."""
