"""What goes over connections and onto disks: batches, records, messages, JSON, and the route table.

Decides nothing. Everybody may come in, the clients too.
May import: nothing of minilog but ``errors`` and ``config``.
Begin with ``batch.py`` (a batch is Kafka's, byte for byte), then ``messages.py`` and ``routes.py``.
"""
