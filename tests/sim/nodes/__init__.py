"""The simulated world: clock, network and disk, and the processes in it. Begin with
``world.py``."""
