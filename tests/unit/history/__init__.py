"""The history checker judged itself: hand-written histories for every class, corrupted ones, clean
ones."""
