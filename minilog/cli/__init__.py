"""The command ``minilog``: a person's and a script's way to everything there is.

``main.py`` puts the commands together. A room holds the parts of one family. ``output.py`` prints,
``api.py`` asks. May import: ``wire``, ``minilog_client``, and of the processes only how to run
them. Begin with ``main.py``, then ``topic/topic.py``.
"""
