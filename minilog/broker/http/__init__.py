"""The routes of a broker: from a request to one message for the core, and from its reply to an
answer.

``server.py`` finds the handler. One module a family of routes. Come in by ``server.py``. May
import: ``broker/ports.py``, the metrics and the lag of groups, ``server``, ``wire`` and values of
``core``. Never the runtime itself. Begin with ``exchange.py``, then ``native.py``.
"""
