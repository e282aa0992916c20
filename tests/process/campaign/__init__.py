"""Rounds of faults under load, many in a row, and what they measured as tables and pictures. Begin
with ``campaign.py``."""
