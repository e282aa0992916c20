"""``minilog config``, and the options by which a process is told its settings.

Come in by ``cli/main.py`` and ``cli/serve.py``. May import: what ``cli`` may. Begin with
``config.py``.
"""
