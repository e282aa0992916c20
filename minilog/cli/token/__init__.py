"""``minilog token``: credentials of who may use a cluster."""
