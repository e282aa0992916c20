"""``minilog dev``: a cluster of processes on this machine, watched and broken on purpose."""
