"""What is written down: records of the metadata journal, events, failovers, records of groups.

Everybody may come in. May import: records and the bounds. Later versions read what
stands here, so no field changes its meaning. Begin with ``metadata_records.py``.
"""
