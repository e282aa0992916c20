"""Stories of one partition: its leader, its followers, its ISR, and those who read it."""
