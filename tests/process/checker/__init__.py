"""The judge: given everything that clients did and saw, is there any way that this was a correct
log? Begin with ``history.py``."""
