"""Real minilog clusters for pytest: installed with minilog, found by pytest through its plugin
entry point.

```python
def test_orders_survive_a_broker(minilog_cluster):
    minilog_cluster.create_topic("orders", partitions=3, config={"min.insync.replicas": "2"})
    client = minilog_cluster.client()
    client.producer().send("orders", b"paid").result()
    minilog_cluster.kill(minilog_cluster.leader("orders"))
    records = client.consumer("orders", start="earliest").batch()
    assert [record.value for record in records] == [b"paid"]
```

Fixtures, each with processes, a folder and free ports of its own, gone with its test (or with its
module or session: ``minilog_scope`` in the settings of pytest):
``minilog_cluster``   a controller and three brokers, one process each, up in about a second
``minilog_broker``    controller and broker in one process, for tests that need no replicas
``minilog_secured``   the same with TLS, tokens and a security file
``minilog_clusters``  a function that starts clusters of other sizes and settings
``cluster_fixture``   is no fixture, but makes one of any size, settings and scope

Nothing is simulated: the processes are the ones of production, ``kill`` is SIGKILL and ``pause`` is
SIGSTOP.
"""

from minilog.cli.local.broker_process import MinilogBroker
from minilog.testing.cluster import CONTROLLER, MinilogCluster, Target, cluster
from minilog.testing.fixtures import (
    Clusters,
    cluster_fixture,
    minilog_broker,
    minilog_cluster,
    minilog_clusters,
    minilog_secured,
    pytest_addoption,
)

__all__ = [
    "CONTROLLER",
    "Clusters",
    "MinilogBroker",
    "MinilogCluster",
    "Target",
    "cluster",
    "cluster_fixture",
    "minilog_broker",
    "minilog_cluster",
    "minilog_clusters",
    "minilog_secured",
    "pytest_addoption",
]
