"""Clients that write down what they do and see, alone or by the dozen. Begin with
``workload.py``."""
