"""What goes over connections and onto disks.

Decides nothing. Everybody may come in, the clients too. May import: nothing of minilog but
``errors`` and ``config``. ``codec`` is the work on records as bytes, ``journal`` what is written
down about the cluster and its groups, ``json`` the face that people read.
Begin with ``batch.py`` (a batch is Kafka's, byte for byte), then ``messages.py`` and ``routes.py``.
"""
