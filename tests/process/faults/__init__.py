"""Real processes under real faults, judged by the history checker."""
