"""Routes about the cluster: metadata, health, topics, events, and the document of all routes.

Come in by ``broker/http/server.py``. May import: what ``broker/http`` may. Begin with
``metadata.py``.
"""
