"""Processes of minilog on this machine, as a library: for ``dev``, ``bench``, ``demo`` and
``minilog.testing``."""
