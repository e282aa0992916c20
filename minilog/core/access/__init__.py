"""Access: who asks, and what they may do. Pure. Begin with ``policy.py``."""
