"""Faults of processes, networks and disks, each a function of a ``Scene``. Begin with
``nemesis.py``. ``catalogue.py`` names them all."""
