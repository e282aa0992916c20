"""Commands that move replicas: each shows what would move, asks, begins it, and watches."""
