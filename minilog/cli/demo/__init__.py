"""``minilog demo``: real events over three brokers, kill -9 of a leader, and the proof that nothing
was lost."""
