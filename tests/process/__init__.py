"""Real processes over loopback, real signals; judged by what was acknowledged and what can be read back."""
