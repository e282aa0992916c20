"""Moving replicas: what is asked for is judged and begun (``requests.py``), and what has begun is
helped to its end (``moves.py``).

What a state with a move in it means, and when it is complete, is ``core/moves``. That a step which
can complete a move does complete it is the business of ``journal/metadata_draft.py``.
"""
