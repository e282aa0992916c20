"""Security around the event loop: the gate, the files it watches, TLS, the audit log. What is
decided, and why, is in ``core/access``."""
