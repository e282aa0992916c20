"""The console: one page for people, at ``/`` of every broker and of the controller, and the stream
that feeds it.

Comes in by ``page.py`` (the page, put together once) and ``live.py`` (the stream). ``sections.py``
says what the stream tells. ``page/`` holds the page's own sources: HTML, CSS, and JavaScript that
nothing builds.
May import: ``server``, ``core`` as far as all may, ``wire``.
Begin with ``live.py``.
"""
