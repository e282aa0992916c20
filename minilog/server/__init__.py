"""What every minilog process has around its event loop: signals, clocks, connections in and out,
bounds on bodies and answers.

Broker and controller come in. Neither is known here. May import: ``core``'s effects and values,
``wire``. Begin with ``process.py`` (from start to exit code), then ``listener.py`` (in) and
``peers.py`` (out).
"""
