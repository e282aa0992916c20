"""Moves over HTTP: planned, begun, listed, cancelled, and what is refused before it is passed on."""

from __future__ import annotations

from typing import Any

import msgspec

from minilog.wire.http import JSON
from tests.unit.broker.http.harness import Broker, Connection, orders, with_broker

PATH = "/v1/reassignments"


async def post(connection: Connection, body: Any, path: str = PATH) -> Any:
    return await connection.request("POST", path, msgspec.json.encode(body), JSON)


def test_moves_are_begun_listed_and_go_back() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        state = broker.runtime.image.partition("orders", 0)
        assert state is not None
        target = [r for r in state.replicas if r != state.replicas[-1]]
        move = {"topic": "orders", "partition": 0, "replicas": target, "partition_epoch": state.partition_epoch}
        looked = (await post(connection, {"moves": [move], "dry_run": True})).json()
        assert (looked["dry_run"], looked["moves"][0]["replicas"]) == (True, target)
        assert (await connection.request("GET", PATH)).json() == {"moves": []}
        begun = (await post(connection, {"moves": [move]})).json()
        assert begun["moves"] == looked["moves"]
        (under_way,) = (await connection.request("GET", PATH)).json()["moves"]
        assert (under_way["before"], under_way["replicas"]) == (state.replicas, target)
        assert (under_way["removing"], under_way["cancelled"]) == ([state.replicas[-1]], False)
        again = await post(connection, {"moves": [{**move, "replicas": state.replicas[::-1]}]})
        assert (again.status, again.json()["code"]) == (409, "REPLICAS_MOVING")
        back = await post(connection, {"moves": [{"topic": "orders", "partition": 0, "replicas": None}]})
        assert back.status == 200
        assert (await connection.request("GET", PATH)).json() == {"moves": []}

    with_broker(test, orders())


def test_a_slip_cancels_nothing() -> None:
    """What is not named is not taken for null, and nothing that is unknown is looked over."""

    async def test(broker: Broker, connection: Connection) -> None:
        slips: list[dict[str, Any]] = [
            {},
            {"moves": []},
            {"moves": [{"topic": "orders", "partition": 0}]},
            {"moves": [{"topic": "orders", "partition": 0, "replicas": []}]},
            {"moves": [{"topic": "orders", "partition": 0, "replica": [1]}]},
            {"moves": [{"topic": "orders", "partition": 0, "replicas": [-1]}]},
        ]
        for body in slips:
            refused = await post(connection, body)
            assert (refused.status, refused.json()["code"]) == (400, "INVALID_REQUEST"), body
        assert (await post(connection, {"of": [1]}, f"{PATH}/plan")).status == 400

    with_broker(test, orders())


def test_a_plan_changes_nothing() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        planned = await post(connection, {"topic": "orders", "replication_factor": 1}, f"{PATH}/plan")
        assert planned.status in (200, 422)
        assert (await connection.request("GET", PATH)).json() == {"moves": []}

    with_broker(test, orders())
