"""Bounds on what one sender can cause, taken away one at a time: the story of each must notice."""

from __future__ import annotations

from functools import partial

from minilog.core import places, shares, turns
from minilog.core.broker import broker, roles
from minilog.core.broker.requests import fetch, produce
from minilog.core.broker.requests.allowance import Allowance
from minilog.core.broker.requests.produce import ProduceRequests
from minilog.core.controller import controller, topics
from minilog.core.controller.brokers.fencing import Fencing
from minilog.core.controller.event_queue import EventQueue
from minilog.core.replication import leader_isr, replica_fetcher
from minilog.errors import DiskFull, StorageFailed
from minilog.wire import batch
from tests.sim.nodes import disk
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_bounds, test_foreign_values
from tests.sim.stories.replication import test_fairness
from tests.sim.stories.storage import test_storage

BOUNDS_ABLATIONS = (
    Ablation(
        "R44",
        "whatever a broker says of itself is journalled",
        ((controller, "check_register", stand_ins.nothing),),
        story=partial(
            test_foreign_values.test_an_address_that_nobody_can_connect_to_is_not_journalled,
            "http://broker-4..internal:8082",
        ),
    ),
    Ablation(
        "R44",
        "whatever replicas a heartbeat names are looked for",
        ((controller, "check_heartbeat", stand_ins.nothing),),
        story=test_foreign_values.test_a_replica_that_cannot_be_is_neither_lost_nor_unfit,
    ),
    Ablation(
        "R44",
        "a setting is journalled however it was written",
        ((topics, "check_lengths", stand_ins.nothing),),
        story=test_foreign_values.test_a_setting_is_as_long_as_its_value_can_be,
    ),
    Ablation(
        "bounds",
        "a message may name whatever it likes",
        ((broker, "check_bounds", stand_ins.nothing),),
        story=test_bounds.test_a_message_that_names_too_much_is_refused_before_it_is_looked_at,
    ),
    Ablation(
        "bounds",
        "each batch of a request is looked at for itself",
        ((Allowance, "_take_producers", stand_ins.nothing),),
        story=test_bounds.test_the_batches_of_a_request_are_added_up_over_its_partitions,
    ),
    Ablation(
        "bounds",
        "a batch may claim as many records as it likes",
        ((batch, "OBJECTS_MAX", 2**31), (batch, "RECORDS_MAX", 2**62)),
        story=test_storage.test_a_batch_that_claims_more_records_than_there_can_be_is_refused_and_nobody_ends,
    ),
    Ablation(
        "R42",
        "all that there is to do is done in one turn",
        ((roles, "FILES_MAX", 2**31),),
        story=test_bounds.test_a_topic_of_many_partitions_is_made_in_many_turns,
    ),
    Ablation(
        "R42",
        "a request is appended in one turn, whatever it holds",
        ((produce, "TURN_WORK", 2**31),),
        story=test_bounds.test_what_one_request_writes_everywhere_is_written_in_many_turns,
    ),
    Ablation(
        "R42",
        "whoever waits for a commit is answered in one turn",
        ((fetch, "TURN_LOOKS", 2**31),),
        story=test_bounds.test_many_that_wait_for_one_commit_are_answered_in_many_turns,
    ),
    Ablation(
        "R42",
        "an answer of a leader is taken over in one turn, whatever it holds",
        ((replica_fetcher, "TURN_WORK", 2**31),),
        story=test_bounds.test_what_a_leader_answers_is_taken_over_in_many_turns,
    ),
    Ablation(
        "R45",
        "whoever has a connection keeps it",
        ((places._Pool, "who_gives_way", stand_ins.nothing),),
        story=test_fairness.test_idle_strangers_give_way_to_newcomers,
    ),
    Ablation(
        "R45",
        "whoever waits first may wait as often as there is room",
        ((shares.Shares, "may_take", stand_ins.while_there_is_room),),
        story=test_fairness.test_who_waits_in_great_numbers_leaves_room_for_others,
    ),
    Ablation(
        "R45",
        "the cluster has no places of its own",
        ((places.Places, "vouch", stand_ins.nothing),),
        story=test_fairness.test_strangers_that_keep_every_connection_busy_keep_no_broker_from_registering,
    ),
    Ablation(
        "R45",
        "whoever sends most is served most",
        ((turns.Turns, "next", stand_ins.the_longest_queue),),
        story=test_fairness.test_who_sends_much_waits_behind_itself,
    ),
    Ablation(
        "R45",
        "a controller decides on everything in the order of receipt",
        ((EventQueue, "put_client", stand_ins.in_one_line),),
        story=test_fairness.test_a_controller_hears_brokers_however_many_clients_ask,
    ),
    Ablation(
        "R45",
        "a write is taken however late its answer will be",
        ((ProduceRequests, "_check_in_time", stand_ins.nothing),),
        story=test_fairness.test_a_write_that_would_be_answered_too_late_is_refused_before_it_is_written,
    ),
    Ablation(
        "R43",
        "a lack of descriptors is a disk that failed",
        ((disk, "TooManyOpenFiles", StorageFailed),),
        story=test_bounds.test_a_broker_that_may_open_no_more_files_refuses_these_and_goes_on,
    ),
    Ablation(
        "R43",
        "who cannot write goes on leading",
        ((Fencing, "relieve", stand_ins.nothing),),
        story=test_storage.test_a_broker_whose_syncs_take_seconds_hands_over_what_it_leads,
    ),
    Ablation(
        "R43",
        "who may not join is waited for all the same",
        ((leader_isr, "REFUSED_MS", 0),),
        story=test_storage.test_a_broker_with_a_full_disk_hands_over_what_it_leads_and_needs_no_restart,
    ),
    Ablation(
        "bounds",
        "a name that is refused is a disk that failed",
        ((roles, "NameRefused", DiskFull),),
        story=test_storage.test_a_name_that_one_file_system_does_not_take_costs_one_replica_and_no_broker,
    ),
)
