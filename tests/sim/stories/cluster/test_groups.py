"""Stories of consumer groups: what each must do, in the order in which people meet it."""

from __future__ import annotations

from minilog.errors import GroupChanged, GroupNotEmpty, NotCoordinator
from minilog.wire.codec.murmur2 import partition_of
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    OffsetCommit,
)
from minilog.wire.messages import Ok, ReplicaFetch, ReplicaFetchReply
from minilog.wire.topic_partition import TopicPartition
from tests.sim.cluster import SimCluster
from tests.sim.nodes.members import Habits, Member


def grouped(*names: str, partitions: int = 4, habits: Habits | None = None) -> tuple[SimCluster, list[Member]]:
    """A cluster with topic t, whose partitions the named members have shared out."""
    c = SimCluster(timeouts={"group_heartbeat_interval_ms": 300}).start()
    c.create_topic("t", partitions=partitions, min_isr=2)
    members = [c.add_member(name, habits=habits) for name in names]
    for member in members:
        member.start()
        c.until(lambda: settled(c, members[: members.index(member) + 1], partitions), f"{member.name} joins")  # noqa: B023
    return c, members


def settled(c: SimCluster, members: list[Member], partitions: int = 4) -> bool:
    """They share the partitions out among them, evenly, and all know the same epoch."""
    held = sorted(part for m in members for part in m.held)
    sizes = [len(m.held) for m in members]
    same = len({m.epoch for m in members}) == 1 and not any(m.pending or m.giving_back for m in members)
    return same and held == [("t", p) for p in range(partitions)] and max(sizes) - min(sizes) <= 1


def coordinator(c: SimCluster) -> int:
    """Who leads the partition that group g lives in."""
    return c.leader("__groups", partition_of(b"g", 8))


def test_the_first_request_makes_the_topic_and_the_first_member_gets_everything() -> None:
    c, (one,) = grouped("one")
    assert sorted(one.held) == [("t", p) for p in range(4)]
    state = c.state("__groups")
    assert len(state.replicas) == 3
    assert len(c.invariants.truth.topics["__groups"].partitions) == 8
    assert c.invariants.truth.topics["__groups"].settings.min_insync_replicas == 2


def test_a_second_member_gets_its_half_only_after_the_first_gave_it_back() -> None:
    """R79: the first is told at once and takes its time."""
    c, (one,) = grouped("one")
    one.gives_back = False
    two = c.add_member("two")
    two.start()
    c.until(lambda: len(one.giving_back) == 2 and two.pending == 2)
    c.run(2000)
    assert not two.held
    one.gives_back = True
    for part in list(one.giving_back):
        one._given_back(part)
    c.until(lambda: settled(c, [one, two]))


def test_who_leaves_frees_its_partitions_at_once() -> None:
    c, (one, two) = grouped("one", "two")
    two.leave()
    assert c.until(lambda: settled(c, [one])) < 1000


def test_who_crashes_is_fenced_after_its_session_and_not_before() -> None:
    """R85: nothing but silence tells that it has gone."""
    c, (one, two) = grouped("one", "two")
    c.run(1000)
    two.kill()
    c.run(2300)
    assert len(one.held) == 2
    c.until(lambda: settled(c, [one]), within_ms=2000)


def test_a_zombie_may_not_commit_and_joins_anew() -> None:
    """R80: it was frozen, and what it held is held by another one."""
    c, (one, two) = grouped("one", "two")
    two.pause()
    c.until(lambda: settled(c, [one]), within_ms=6000)
    held, epoch = list(two.held), two.epoch
    two.paused = False  # it goes on where it was, and commits before it looks at the clock
    two.epoch, two.session_end_ms = epoch, c.world.now_ms + 1000
    c.watch.members.remove(two)
    commit = two.commit(held[0])
    c.until(lambda: commit.outcome is not None)
    assert commit.outcome == "failed"
    assert two.problems["UNKNOWN_MEMBER"] > 0
    c.watch.members.append(two)
    two.kill()
    two.start()
    c.until(lambda: settled(c, [one, two]))


def test_a_coordinator_that_dies_in_a_rebalance_is_replaced_and_the_rebalance_ends() -> None:
    """R82, R78: the next one has it from the log who holds what and who is to give what back."""
    c, (one,) = grouped("one")
    one.gives_back = False
    two = c.add_member("two")
    two.start()
    c.until(lambda: bool(one.giving_back))
    c.broker(coordinator(c)).kill()
    one.gives_back = True
    for part in list(one.giving_back):
        one._given_back(part)
    c.until(lambda: settled(c, [one, two]))
    assert one.epoch == two.epoch == 2


def test_commits_survive_the_coordinator() -> None:
    """R78: the next coordinator knows them from the log of the partition that it leads."""
    c, (one,) = grouped("one")
    c.until(lambda: all(done is not None for done in one.held.values()))
    commit = one.commit(("t", 2))
    c.until(lambda: commit.outcome == "ok")
    one.leave()
    c.broker(coordinator(c)).kill()
    reader = c.add_reader("r")
    reader.begin()
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets is not None
    shown = reader.offsets.get(("t", 2))
    assert shown is not None
    assert shown >= commit.offset


def test_a_commit_is_acknowledged_when_the_replicas_have_it_and_not_before() -> None:
    """R77: the coordinator has written it and its followers cannot fetch it."""
    c, (one,) = grouped("one")
    c.until(lambda: all(done is not None for done in one.held.values()))
    one.is_in = False
    c.run(200)
    c.network.hold(ReplicaFetchReply)
    commit = one.commit(("t", 2))
    c.run(50)
    c.broker(coordinator(c)).kill()
    c.network.pass_all()
    reader = c.add_reader("r")
    reader.begin()
    begun_ms = c.world.now_ms
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets is not None
    c.watch.on_read("g", ("t", 2), reader.offsets.get(("t", 2)), begun_ms)
    assert commit.outcome != "ok"


def test_a_static_member_restarts_without_a_rebalance() -> None:
    c, (one, two) = grouped("one", "two", habits=Habits(is_static=True))
    held, epoch = sorted(two.held), two.epoch
    two.leave()
    c.run(1000)
    assert len(one.held) == 2
    two.start()
    c.until(lambda: sorted(two.held) == held)
    assert (one.epoch, two.epoch) == (epoch, epoch)


def test_a_static_member_that_crashed_takes_over_when_its_old_session_ends() -> None:
    c, (one, two) = grouped("one", "two", habits=Habits(is_static=True))
    held, epoch = sorted(two.held), two.epoch
    two.kill()
    two.start()
    c.run(1000)
    assert two.problems["INSTANCE_IN_USE"] > 0
    c.until(lambda: sorted(two.held) == held, within_ms=4000)
    assert (one.epoch, two.epoch) == (epoch, epoch)


def test_a_static_member_that_stays_away_is_given_up() -> None:
    c, (one, two) = grouped("one", "two", habits=Habits(is_static=True))
    two.leave()
    c.until(lambda: settled(c, [one]), within_ms=5000)


def test_a_commit_of_what_was_given_back_is_refused() -> None:
    """R80: the member is alive and in the current epoch, but another one owns the partition."""
    c, (one,) = grouped("one")
    two = c.add_member("two")
    two.start()
    c.until(lambda: settled(c, [one, two]))
    (part,) = [part for part in two.held if part[1] == 3]
    commit = one.commit(part)
    c.until(lambda: commit.outcome is not None)
    assert commit.outcome == "failed"
    assert one.problems["NOT_ASSIGNED"] == 1


def test_who_does_not_give_back_is_expelled_and_its_partitions_wait_for_its_session() -> None:
    """R83: it is heard no more, but it may not know that and works on for as long as its session
    lasts."""
    c, (one,) = grouped("one", habits=Habits(poll_timeout_ms=500))
    one.gives_back = False
    two = c.add_member("two")
    two.start()
    c.until(lambda: bool(one.giving_back))
    one.pause()
    c.run(1000)
    assert not two.held, "it cannot know yet that it was expelled"
    one.resume()
    c.until(lambda: one.problems["UNKNOWN_MEMBER"] > 0)
    one.gives_back = True
    c.until(lambda: settled(c, [one, two]))


def test_a_topic_made_anew_has_no_committed_offsets() -> None:
    """R81: what was committed for the old topic of that name says nothing of this one."""
    c, (one,) = grouped("one")
    c.until(lambda: all(done is not None for done in one.held.values()))
    commit = one.commit(("t", 0))
    c.until(lambda: commit.outcome == "ok")
    one.leave()
    c.delete_topic("t")
    c.create_topic("t", partitions=2, min_isr=2)
    reader = c.add_reader("r")
    reader.begin()
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets == {}


def test_a_topic_made_anew_is_not_begun_while_the_old_one_is_held() -> None:
    """R86: same name, same partitions, another id."""
    c, (one,) = grouped("one")
    one.gives_back = False
    c.delete_topic("t")
    c.create_topic("t", partitions=4, min_isr=2)
    c.until(lambda: len(one.giving_back) == 4)
    epoch = one.epoch
    c.run(1000)
    assert one.epoch == epoch
    one.gives_back = True
    for part in list(one.giving_back):
        one._given_back(part)
    c.until(lambda: settled(c, [one]))
    assert one.epoch > epoch


def test_a_late_copy_of_a_heartbeat_frees_nothing() -> None:
    """R79: one of the time before the member was given anything arrives when it has been told
    nothing yet."""
    c, (one,) = grouped("one")
    late = GroupHeartbeat("g", one.member_id, one.epoch, ["t"], session_timeout_ms=3000)
    one._is_asking = True  # nothing more from itself
    two = c.add_member("two")
    two.start()
    c.until(lambda: two.pending == 2)
    one._ask(late, lambda _: None)
    c.run(500)
    assert len(one.held) == 4
    assert not two.held


def test_a_late_copy_of_a_commit_takes_no_offset_back_not_even_at_the_next_coordinator() -> None:
    """R90: the number of a commit is in the log, so the next coordinator knows which is older."""
    c, (one,) = grouped("one")
    c.until(lambda: all(done is not None for done in one.held.values()))
    late = c.network.copy(CommitOffsets)
    old = one.commit(("t", 2))
    c.until(lambda: old.outcome == "ok")
    c.network.pass_all()
    new = one.commit(("t", 2))
    c.until(lambda: new.outcome == "ok")
    c.broker(coordinator(c)).kill()
    one.is_in = False
    c.run(1500)
    reader = c.add_reader("r")
    reader.begin()
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets is not None
    before = reader.offsets["t", 2]
    answers: list[object] = []
    one._coordinator = coordinator(c)
    one._ask(late.messages[0], answers.append)
    c.until(lambda: bool(answers))
    assert isinstance(answers[0], GroupChanged)
    reader.offsets = None
    reader.begin()
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets is not None
    assert reader.offsets["t", 2] == before != old.offset


def test_a_late_copy_of_a_leave_removes_nobody_who_came_back_under_its_id() -> None:
    """R90: the leave names the epoch of a life that is over."""
    c, (one, two) = grouped("one", "two", habits=Habits(keeps_id=True))
    late = c.network.copy(LeaveGroup)
    two.leave()
    c.until(lambda: settled(c, [one]))
    c.network.pass_all()
    two.start()
    c.until(lambda: settled(c, [one, two]))
    epoch = two.epoch
    answers: list[object] = []
    two._ask(late.messages[0], answers.append)
    c.until(lambda: bool(answers))
    assert answers == [Ok()]
    c.run(1000)
    assert settled(c, [one, two])
    assert two.epoch == epoch


def test_a_late_copy_of_a_join_changes_no_subscription() -> None:
    """R90: what a member says with the epoch that it was told is newer than how it joined."""
    c, (one, two) = grouped("one", "two")
    c.create_topic("u", partitions=1, min_isr=2)
    epoch = one.epoch
    answers: list[object] = []
    one._ask(GroupHeartbeat("g", one.member_id, 0, ["u"]), answers.append)
    c.until(lambda: bool(answers))
    assert isinstance(answers[0], GroupHeartbeatReply)
    c.run(1000)
    assert settled(c, [one, two])
    assert one.epoch == epoch


def test_a_late_copy_of_a_deletion_deletes_no_group_that_was_made_anew() -> None:
    """R90: the deletion names the epoch of a group that is gone."""
    c, (one,) = grouped("one")
    late = DeleteGroup("g", group_epoch=one.epoch + 1)  # of the group it leaves behind
    one.leave()
    assert deleted(c, one, late) == DeleteGroupReply()
    one.start()
    c.until(lambda: bool(one.held))
    one.leave()
    assert isinstance(deleted(c, one, late), GroupChanged)


def deleted(c: SimCluster, member: Member, request: DeleteGroup) -> object:
    """What the coordinator answers when nobody is in the group any more."""
    answers: list[object] = []

    def is_answered() -> bool:
        return bool(answers) and not isinstance(answers[-1], NotCoordinator | GroupNotEmpty)

    while not is_answered():
        member._coordinator = coordinator(c)
        member._ask(request, answers.append)
        c.run(500)
    return answers[-1]


def test_a_coordinator_cut_off_from_everybody_answers_nobody_for_long() -> None:
    """R84: another one may have been elected, and may have given away what its members hold."""
    c, (one,) = grouped("one")
    old = coordinator(c)
    for other in (-1, *(b for b in c.brokers if b != old)):
        c.network.cut(old, other)
    c.run(2500)
    reader = c.add_reader("r")
    reader._coordinator = old
    reader.begin()
    c.until(lambda: reader.problems["COORDINATOR_NOT_AVAILABLE"] > 0)
    assert coordinator(c) != old
    c.until(lambda: settled(c, [one]))


def pinned(c: SimCluster, member: Member, broker_id: int, duration_ms: int) -> None:
    """Time passes, and the member asks this one broker only."""
    for _ in range(duration_ms // 10):
        member._coordinator = broker_id
        c.run(10)


def test_a_fetch_that_was_late_on_its_way_makes_no_replaced_coordinator_sure() -> None:
    """R84, R82: its sender has followed before it was sent, and leads since. Who was answered on
    its ground would own too long."""
    c, (two,) = grouped("two")
    c.until(lambda: all(done is not None for done in two.held.values()))
    old = coordinator(c)
    two._is_committing = True  # a write that cannot commit would silence the old one
    for broker_id in c.brokers:
        if broker_id != old:
            c.network.cut(broker_id, two.node_id)
    c.network.cut(old, -1)
    pinned(c, two, old, 1500)
    late = c.network.hold(ReplicaFetch, when=lambda m: isinstance(m, ReplicaFetch) and m.leader == old)
    c.until(lambda: coordinator(c) not in (old, -1), "another one leads")
    one = c.add_member("one")
    one._coordinator = coordinator(c)
    c.network.cut(old, one.node_id)
    one.start()
    pinned(c, two, old, 1500)
    c.network.pass_all()
    late.release()
    c.run(5)
    for broker_id in c.brokers:
        if broker_id != old:
            c.network.cut(broker_id, old)
    pinned(c, two, old, 6000)
    c.network.heal()
    c.until(lambda: settled(c, [one, two]))


def test_a_replaced_coordinator_shows_no_offsets_of_yesterday() -> None:
    """R91: the controller has not been heard for a moment only, and somebody has moved the group on
    meanwhile."""
    c, (one,) = grouped("one")
    c.until(lambda: all(done is not None for done in one.held.values()))
    commit = one.commit(("t", 2))
    c.until(lambda: commit.outcome == "ok")
    one.leave()
    c.run(500)
    old = coordinator(c)
    c.network.cut(old, -1)
    c.until(lambda: coordinator(c) not in (old, -1), "another one leads")
    moved: list[object] = []

    def move(answer: object = None) -> None:
        if isinstance(answer, CommitOffsetsReply):
            moved.append(answer)
            return
        one._coordinator = coordinator(c)
        one._ask(CommitOffsets("g", [OffsetCommit("t", 2, commit.offset + 7)]), move)

    move()
    c.until(lambda: bool(moved))
    reader = c.add_reader("r")
    for _ in range(50):
        reader._coordinator, reader.offsets = old, None
        reader.begin()
        c.run(50)
        assert reader.offsets is None or reader.offsets["t", 2] == commit.offset + 7
    c.network.heal()
    c.until(lambda: reader.offsets is not None)


def test_who_reads_at_an_idle_coordinator_does_not_wait_for_a_long_poll() -> None:
    """R91: nothing is written, so those who may lead instead would ask again in half a second. The
    controller is silent."""
    c, (one,) = grouped("one")
    one.leave()
    c.run(500)
    reader = c.add_reader("r")
    c.network.cut(coordinator(c), -1)
    c.run(1000)
    reader._coordinator = coordinator(c)
    for _ in range(5):
        reader.offsets = None
        reader.begin()
        assert c.until(lambda: reader.offsets is not None) < 50
        c.run(100)


def test_a_member_that_heard_only_the_old_coordinator_is_fenced_when_it_knows_too() -> None:
    """R82: cut off from the controller, then from the rest, the old one answers while its followers
    may still be its own."""
    c, (one, two) = grouped("one", "two")
    old = coordinator(c)
    c.network.cut(old, -1)
    for broker_id in c.brokers:
        if broker_id != old:
            c.network.cut(broker_id, two.node_id)
    two._coordinator = old
    one._is_committing = two._is_committing = True  # a write that cannot commit would silence the old one at once
    c.run(1800)
    for broker_id in c.brokers:
        if broker_id != old:
            c.network.cut(old, broker_id)
    c.until(lambda: coordinator(c) != old)
    c.run(1000)
    assert len(two.held) == 2
    assert two.session_end_ms > c.world.now_ms + 2000, "it was answered just now"
    c.until(lambda: settled(c, [one]), within_ms=8000)


def test_a_commit_for_a_topic_that_was_made_anew_is_not_stored() -> None:
    """R81: the member works on the old one until it is told to give it back. Its offsets mean
    nothing in the new one."""
    c, (one,) = grouped("one")
    c.until(lambda: bool(one.held))
    one._is_asking = True  # it hears nothing for now
    c.delete_topic("t")
    c.create_topic("t", partitions=4, min_isr=2)
    c.run(500)
    commit = one.commit(("t", 0))
    c.until(lambda: commit.outcome is not None)
    assert commit.outcome == "failed"
    reader = c.add_reader("r")
    reader.begin()
    c.until(lambda: reader.offsets is not None)
    assert reader.offsets == {}


def test_a_topic_that_is_wanted_again_before_it_is_given_back_is_read_on() -> None:
    """R86: nobody wanted it for a moment, but it is the same topic, and its holder has not
    stopped."""
    c, (one,) = grouped("one")
    c.create_topic("a", partitions=1, min_isr=2)
    one.gives_back = False
    one.habits = Habits(topics=("a",))
    c.until(lambda: len(one.giving_back) == 4)
    one.habits = Habits(topics=("t",))
    c.until(lambda: sorted(one.giving_back) == [("a", 0)])
    one.gives_back = True
    for part in list(one.giving_back):
        one._given_back(part)
    c.until(lambda: settled(c, [one]))


def test_a_topic_made_anew_and_wanted_again_is_begun_when_the_old_one_is_given_back() -> None:
    """R86: made anew while nobody wanted it, so nothing changes any more when the last of the old
    one is given back."""
    c, (one,) = grouped("one")
    c.create_topic("a", partitions=1, min_isr=2)
    one.gives_back = False
    one.habits = Habits(topics=("a",))
    c.until(lambda: len(one.giving_back) == 4)
    c.delete_topic("t")
    c.create_topic("t", partitions=4, min_isr=2)
    c.run(1500)
    one.habits = Habits(topics=("t",))
    c.run(1500)
    assert len(one.giving_back) >= 4
    one.gives_back = True
    for part in list(one.giving_back):
        one._given_back(part)
    c.until(lambda: settled(c, [one]))


def joined_epoch(c: SimCluster, member: Member) -> int:
    """When the coordinator took it in, as the group's log says."""
    core = c.broker(coordinator(c)).core
    assert core is not None
    shard = core.coordinator.shards[TopicPartition("__groups", partition_of(b"g", 8))]
    return shard.groups.groups["g"].group.members[member.member_id].joined_epoch


def test_who_asks_while_too_few_replicas_are_in_sync_is_a_member_when_they_are_back() -> None:
    """R87: when they are back the coordinator looks who was silent before it is asked again."""
    c, (one,) = grouped("one")
    c.create_topic("u", partitions=2, min_isr=1)
    joined = joined_epoch(c, one)
    others = [broker_id for broker_id in c.brokers if broker_id != coordinator(c)]
    for broker_id in others:
        c.broker(broker_id).kill()
    c.until(lambda: len(c.state("__groups", partition_of(b"g", 8)).isr) == 1)
    one.habits = Habits(topics=("t", "u"))  # so there is something to write
    c.run(8000)
    assert one.problems["NOT_ENOUGH_REPLICAS"] > 0
    c.network.hold(GroupHeartbeat)
    for broker_id in others:
        c.broker(broker_id).start()
    c.until(lambda: len(c.state("__groups", partition_of(b"g", 8)).isr) > 1, within_ms=1500)
    c.run(800)
    c.network.pass_all()
    c.until(lambda: len(one.held) == 6)
    assert joined_epoch(c, one) == joined
