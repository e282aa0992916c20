"""A cluster that knows who asks: tokens, rules and TLS between real processes."""
