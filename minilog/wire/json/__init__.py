"""The face that people read: records and answers as JSON, declared once for routes and clients.

Everybody may come in. May import: the other modules of ``wire``. Begin with ``json_answers.py``.
"""
