"""What is decided next: brokers wait for one client at a time, and no client waits for ever."""

from __future__ import annotations

from minilog.core.controller.event_queue import EventQueue

A, B = ("a", "Metadata"), ("b", "Metadata")


def popped(queue: EventQueue[str], count: int) -> str:
    return "".join(queue.pop() for _ in range(count))


def test_a_broker_waits_for_one_client_at_a_time() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    for client in "abcd":
        queue.put_client(client, A, 0)
    for broker in "123":
        queue.put(broker)
    assert popped(queue, len(queue)) == "a123bcd"
    assert not queue


def test_what_was_there_before_a_client_is_decided_before_it() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    for broker in "12":
        queue.put(broker)
    queue.put_client("a", A, 0)
    queue.put("3")
    assert popped(queue, 4) == "12a3"


def test_a_client_goes_on_however_much_comes_of_brokers() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    queue.put("0")
    queue.put_client("a", A, 0)
    queue.put_client("b", A, 0)
    order = ""
    while len(order) < 10:
        queue.put("1")
        queue.put("2")
        order += queue.pop()
    assert "a" in order[:3]
    assert "b" in order


def test_clients_take_turns() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    for client in "123":
        queue.put_client(client, A, 0)
    queue.put_client("x", B, 0)
    assert popped(queue, 4) == "1x23"


def test_who_waits_too_long_has_its_newer_ones_refused() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    queue.put_client("a", A, 0)
    assert queue.put_client("b", A, 1001) is None
    assert queue.put_client("c", B, 1001) is not None
    assert popped(queue, 2) == "ac"


def test_what_waits_can_be_replaced_in_its_place_and_what_does_not_cannot() -> None:
    queue: EventQueue[str] = EventQueue(1000)
    first = queue.put_client("a", A, 0)
    queue.put_client("b", A, 0)
    second = queue.put("1")
    assert first is not None
    assert queue.replace(first, "A")
    assert queue.replace(second, "!")
    assert popped(queue, 3) == "A!b"
    assert not queue.replace(first, "A")
    queue.put_client("c", A, 0)
    queue.put("2")
    queue.clear()
    assert (bool(queue), len(queue)) == (False, 0)
