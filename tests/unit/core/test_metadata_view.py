"""What lists of topics show, and what must be named to be shown."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.metadata_view import metadata_reply
from minilog.wire.journal.metadata_records import TopicCreated
from tests.unit.core.builders import TOPIC, image_of, partition_state, topic_records


def test_internal_topics_are_shown_to_who_asks_for_them_by_name() -> None:
    internal = replace(partition_state(), topic="__groups", topic_id="i")
    image = image_of(*topic_records(partition_state()), TopicCreated("__groups", "i", {}), internal)
    assert [t.topic for t in metadata_reply(image, None).topics] == [TOPIC]
    assert [t.topic for t in metadata_reply(image, ["__groups", "none"]).topics] == ["__groups"]
