"""Where processes of tests come from: forked off one that has imported minilog already, because
half of what a short-lived process costs is the import. ``nursery.py`` is the test's side,
``newborn.py`` what runs in the other process. What is not asked for here (a clock of its own) needs
an ``exec``, and is started without this room."""
