"""Bounds on what one sender can cause, taken away one at a time: the story of each must notice."""

from __future__ import annotations

from minilog.core.broker import broker, roles
from minilog.core.broker.allowance import Allowance
from minilog.errors import DiskFull
from minilog.wire import batch
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation
from tests.sim.stories import test_bounds, test_storage

BOUNDS_ABLATIONS = (
    Ablation(
        "bounds",
        "a message may name whatever it likes",
        ((broker, "check_bounds", stand_ins.nothing),),
        story=test_bounds.test_a_message_that_names_too_much_is_refused_before_it_is_looked_at,
    ),
    Ablation(
        "bounds",
        "each batch of a request is looked at for itself",
        ((Allowance, "take", stand_ins.nothing),),
        story=test_bounds.test_the_batches_of_a_request_are_added_up_over_its_partitions,
    ),
    Ablation(
        "bounds",
        "a batch may claim as many records as it likes",
        ((batch, "OBJECTS_MAX", 2**31), (batch, "RECORDS_MAX", 2**62)),
        story=test_storage.test_a_batch_that_claims_more_records_than_there_can_be_is_refused_and_nobody_ends,
    ),
    Ablation(
        "bounds",
        "a name that is refused is a disk that failed",
        ((roles, "NameRefused", DiskFull),),
        story=test_storage.test_a_name_that_one_file_system_does_not_take_costs_one_replica_and_no_broker,
    ),
)
