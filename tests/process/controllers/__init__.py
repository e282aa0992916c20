"""Several controllers and a real etcd."""
