"""What the tests stand on: processes, networks and disks of their own, and what is measured of the
machine. Begin with ``cluster.py``."""
