"""minilog: a partitioned, replicated log broker that speaks HTTP."""

__version__ = "0.1.0"
