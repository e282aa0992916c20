"""``minilog bench``: throughput, latency and failover, on a cluster of its own or on one that
runs."""
