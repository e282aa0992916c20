"""Every fault at every disk operation of every scenario (python -m tests.sim.sweep). Begin with
``scenarios.py``."""
