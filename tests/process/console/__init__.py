"""The console, in a real browser, through what it is for.

Begin with ``test_console.py``. ``browser.py`` drives Chromium, ``timing.py`` and ``pictures.py``
are commands: how long an update takes, and how the pages look.
"""
