"""Random runs: what is drawn from a seed, the faults, and very many of them. Begin with
``schedule.py``."""
