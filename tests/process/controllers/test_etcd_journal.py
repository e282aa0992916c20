"""The shared journal in a real etcd: what it keeps, whom it fences, what it refuses and how it says
so."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest

from minilog.cli.local.etcd import EtcdMember, start_etcd
from minilog.cli.local.ports import free_ports
from minilog.config import ControllerSettings
from minilog.controller import migrate
from minilog.controller.etcd.access import Access
from minilog.controller.etcd.gateway import Gateway, Pin
from minilog.controller.etcd.journal import FRAME_BYTES_MAX, EtcdJournal
from minilog.controller.journal import FileJournal
from minilog.controller.migrate import to_etcd, to_file
from minilog.core.controller.shared.transaction import Delete, Put, Transaction
from minilog.errors import Deposed, InvalidRequest, RefusesToStart, StorageFailed
from minilog.wire.journal.metadata_records import ControllerStarted, MetadataRecord, ProducerIdsAllocated, TopicCreated
from tests.process.conftest import leave_out
from tests.process.controllers.conftest import Settings


def records(first: int, end: int) -> list[MetadataRecord]:
    return [ProducerIdsAllocated(1, number) for number in range(first, end)]


def large(count: int) -> list[MetadataRecord]:
    """Of 64 KiB each."""
    return [TopicCreated(f"t{number}", "id", {"x": "y" * 65_000}) for number in range(count)]


@pytest.fixture
def journals(settings_of: Settings) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(stack: ExitStack, settings: ControllerSettings) -> tuple[EtcdJournal, list[MetadataRecord]]:
    journal = EtcdJournal(settings, "one", "http://127.0.0.1:1")
    stack.callback(journal.close)
    replayed = journal.open()
    assert journal.last_index == replayed.snapshot_index + len(replayed.tail)
    return journal, [*replayed.snapshot, *replayed.tail]


def everything(settings: ControllerSettings) -> list[MetadataRecord]:
    with ExitStack() as stack:
        return opened(stack, settings)[1]


def test_what_was_appended_is_there_for_the_next(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, found = opened(stack, settings)
        assert found == []
        assert journal.append(records(1, 4)) == 3
        assert journal.append(records(4, 5)) == 4
    assert everything(settings) == records(1, 5)


def test_a_snapshot_stands_for_what_was_before_it(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        for number in range(1, 9):
            journal.append(records(number, number + 1))
            if number in (3, 6):
                journal.snapshot(number, records(100, 103))
        assert journal.tail_records == 2
    assert everything(settings) == [*records(100, 103), *records(7, 9)]


def test_a_snapshot_of_many_pieces_is_read_as_it_was_written(settings_of: Settings) -> None:
    settings, many = settings_of(), large(40)
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 2))
        journal.snapshot(1, many)
        journal.append(records(2, 3))
    assert everything(settings) == [*many, *records(2, 3)]


def test_a_damaged_snapshot_is_passed_over(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 3))
        journal.snapshot(2, records(1, 3))
        journal.append(records(3, 5))
        journal.snapshot(4, records(1, 5))
        journal.append(records(5, 6))
        write(settings, Put(journal.places.piece(4, 0), b"something else"))
    assert everything(settings) == records(1, 6)


def write(settings: ControllerSettings, *operations: Put | Delete) -> None:
    gateway = Gateway(Access.of(settings), Pin(), "x", 1000)
    gateway.run(Transaction((), operations))
    gateway.close()


def test_a_decision_larger_than_a_request_is_there_as_a_whole(settings_of: Settings) -> None:
    settings, many = settings_of(), large(100)
    assert 4 * FRAME_BYTES_MAX < 100 * 65_000
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 2))
        assert journal.append(many) == 101
        assert journal.append(records(2, 3)) == 102
    assert everything(settings) == [*records(1, 2), *many, *records(2, 3)]


def test_half_a_decision_counts_for_nothing(settings_of: Settings) -> None:
    """The process dies between two frames of one decision."""
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 2))
        end = journal.places.end

        def dies(transaction: Transaction, lease: int = 0) -> object:
            if any(isinstance(one, Put) and one.key == end for one in transaction.then):
                raise KeyboardInterrupt
            return run(transaction, lease)

        run = journal._writing.run
        journal._writing.run = dies  # type: ignore[assignment,method-assign]
        with pytest.raises(KeyboardInterrupt):
            journal.append(large(30))
        journal._writing.run = run  # type: ignore[method-assign]
    with ExitStack() as stack:
        journal, found = opened(stack, settings)
        assert found == records(1, 2)
        for number in range(2, 40):
            journal.append(records(number, number + 1))
    assert everything(settings) == records(1, 40)


def test_who_was_deposed_writes_nothing(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        first, _ = opened(stack, settings)
        first.append(records(1, 2))
        second, found = opened(stack, settings)
        assert found == records(1, 2)
        with pytest.raises(Deposed, match="held by the controller at"):
            first.append(records(2, 3))
        second.append(records(5, 6))
        with pytest.raises(Deposed):
            first.snapshot(1, records(1, 2))
    assert everything(settings) == [*records(1, 2), *records(5, 6)]


def test_of_two_that_have_seen_the_same_term_one_takes(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        opened(stack, settings)
        standbys = [EtcdJournal(settings, name, "http://127.0.0.1:2") for name in "ab"]
        looks = [standby.look(0) for standby in standbys]
        assert sorted(s.take(look.term) for s, look in zip(standbys, looks, strict=True)) == [False, True]
        for standby in standbys:
            stack.callback(standby.close)


def test_a_standby_sees_what_is_new_and_who_decides(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 3))
        standby = EtcdJournal(settings, "standby", "http://127.0.0.1:2")
        stack.callback(standby.close)
        journal.tend(7, lambda _: None)
        wait_until(lambda: standby.look(2).active is not None)
        look = standby.look(0)
        assert (look.end_index, len(look.frames), look.is_gap) == (2, 1, False)
        assert (look.active.epoch, look.holder.number) == (7, 1)  # type: ignore[union-attr]
        journal.append(records(3, 4))
        journal.snapshot(3, records(1, 4))
        journal.append(records(4, 5))
        journal.snapshot(4, records(1, 5))
        assert standby.look(2).is_gap
        assert standby.read_all()[1] == 4
    with closing(EtcdJournal(settings)) as standby:
        assert standby.look(4).active is None, "a planned end says so"


def test_who_holds_the_term_no_more_hears_of_it_without_writing(settings_of: Settings) -> None:
    settings, told = settings_of(), threading.Event()
    with ExitStack() as stack:
        first, _ = opened(stack, settings)
        first.tend(1, lambda _: told.set())
        opened(stack, settings)
        assert told.wait(10)


def wait_until(condition: object, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_append_waits_for_etcd_and_is_there_once(tmp_path: Path) -> None:
    if shutil.which("etcd") is None:
        leave_out("etcd is not installed")
    member = EtcdMember(tmp_path, 1, free_ports(2)[0])
    settings = ControllerSettings(data_dir=str(tmp_path), journal="etcd", etcd_urls=member.url, etcd_timeout_ms=300)
    start_etcd([member])
    try:
        with ExitStack() as stack:
            journal, _ = opened(stack, settings)
            journal.append(records(1, 2))
            member.signal(signal.SIGSTOP)
            done: list[int] = []
            thread = threading.Thread(target=lambda: done.append(journal.append(records(2, 3))))
            thread.start()
            thread.join(1.5)
            assert not done, "nothing is known before etcd has answered"
            member.signal(signal.SIGCONT)
            thread.join(10)
            assert done == [2]
            member.signal(signal.SIGKILL)
            thread = threading.Thread(target=lambda: done.append(journal.append(records(3, 4))))
            thread.start()
            wait_until(lambda: member.state() == "dead")
            member.reap()
            start_etcd([member])
            thread.join(20)
            assert done == [2, 3]
        assert everything(settings) == records(1, 4)
    finally:
        member.stop()


def test_a_stop_does_not_wait_for_etcd(tmp_path: Path) -> None:
    settings = ControllerSettings(data_dir=str(tmp_path), journal="etcd", etcd_urls="http://127.0.0.1:1")
    journal = EtcdJournal(settings)
    ended = threading.Event()

    def opens() -> None:
        try:
            journal.open()
        except Exception:
            ended.set()

    threading.Thread(target=opens, daemon=True).start()
    assert not ended.wait(0.3)
    journal.give_up()
    assert ended.wait(5)


def refusal(settings: ControllerSettings) -> str:
    with ExitStack() as stack:
        try:
            opened(stack, settings)
        except RefusesToStart as error:
            return str(error)
    raise AssertionError("it did not refuse")


def test_a_foreign_key_below_the_prefix_is_named(settings_of: Settings) -> None:
    settings = settings_of()
    for key in ("aaa", "config", "j0", "snapshot", "zzz"):
        write(settings, Put(settings.etcd_prefix + key, b"?"))
        assert f"{settings.etcd_prefix}{key}" in refusal(settings)
        write(settings, Delete(settings.etcd_prefix + key))
    everything(settings)


def test_a_frame_that_somebody_has_removed_is_missed(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        for number in range(1, 5):
            journal.append(records(number, number + 1))
        places = journal.places
    write(settings, Delete(places.frame(2)))
    assert "record 2 is expected" in refusal(settings)
    write(settings, Delete(places.frame(1)))
    assert "records are missing" in refusal(settings)


def test_what_is_compacted_under_us_is_not_missed(settings_of: Settings, etcd: EtcdMember) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        for number in range(1, 6):
            revision = journal._writing.run(Transaction((), (Put("/elsewhere", b"%d" % number),))).revision
            journal._looking.compact(revision)
            journal.append(records(number, number + 1))
            journal.snapshot(number, records(1, number + 1))
    assert everything(settings) == records(1, 6)


def test_a_term_that_is_none_of_ours_is_not_taken(settings_of: Settings) -> None:
    settings = settings_of()
    write(settings, Put(f"{settings.etcd_prefix}term", b"mine"))
    assert "no term of a controller" in refusal(settings)


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdMember]:
    if shutil.which("etcd") is None:
        leave_out("etcd is not installed")
    member = EtcdMember(tmp_path, 1, free_ports(2)[0])
    yield member
    member.stop()


def test_an_etcd_without_room_is_told_of(own_etcd: EtcdMember, tmp_path: Path) -> None:
    start_etcd([own_etcd], ["--quota-backend-bytes", str(1024 * 1024)])
    settings = ControllerSettings(data_dir=str(tmp_path), journal="etcd", etcd_urls=own_etcd.url)
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        with pytest.raises(StorageFailed, match="etcd has no room"):
            append_again_and_again(journal)
    assert "etcd has no room" in refusal(settings)


def append_again_and_again(journal: EtcdJournal) -> None:
    for _ in range(20):
        journal.append(large(4))


def etcdctl(member: EtcdMember, *words: str) -> None:
    subprocess.run(["etcdctl", "--endpoints", member.url, *words], check=True, capture_output=True, env=ENVIRONMENT)


ENVIRONMENT = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}


def test_credentials_and_what_they_allow(own_etcd: EtcdMember, tmp_path: Path) -> None:
    start_etcd([own_etcd])
    secret = tmp_path / "password"
    secret.write_text("right\n")
    for words in (
        "user add root:r", "user grant-role root root", "user add minilog:right", "role add minilog",
        "role grant-permission minilog --prefix=true readwrite /minilog/main/", "user grant-role minilog minilog",
        "user add reader:right", "role add reader", "role grant-permission reader --prefix=true read /minilog/main/",
        "user grant-role reader reader", "auth enable",
    ):  # fmt: skip
        etcdctl(own_etcd, *words.split())
    base = {"data_dir": str(tmp_path), "journal": "etcd", "etcd_urls": own_etcd.url}
    known = {**base, "etcd_password_file": str(secret)}
    minilog = ControllerSettings(**known, etcd_user="minilog")  # type: ignore[arg-type]
    with ExitStack() as stack:
        journal, _ = opened(stack, minilog)
        journal.append(records(1, 2))
        journal._writing._token = "of yesterday.1"
        journal.append(records(2, 3))
    assert everything(minilog) == records(1, 3)
    assert "may not do that" in refusal(ControllerSettings(**known, etcd_user="reader"))  # type: ignore[arg-type]
    assert "user name is empty" in refusal(ControllerSettings(**base))  # type: ignore[arg-type]
    secret.write_text("wrong")
    assert "does not take etcd_user = 'minilog'" in refusal(minilog)
    secret.write_text("")
    assert "is empty" in refusal(minilog)


def test_members_of_two_etcds_are_not_mixed(own_etcd: EtcdMember, settings_of: Settings, etcd: EtcdMember) -> None:
    start_etcd([own_etcd])
    pin, access = Pin(), Access.of(settings_of(etcd_urls=f"{etcd.url},{own_etcd.url}"))
    gateway = Gateway(access, pin, "x", 1000)
    gateway.run(Transaction((), ()))
    gateway._give_up()
    with pytest.raises(Exception, match="belongs to another etcd cluster"):
        gateway.run(Transaction((), (Put("/never", b""),)))
    gateway.close()


def answering(*bodies: bytes) -> int:
    """A listener that gives each connection one answer; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for body in bodies:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"etcdserver":"3.3.25","etcdcluster":"3.3.0"}', "is etcd 3.3.25; controllers need 3.4 or newer"),
        (b'{"name":"minilog"}', "is no etcd: it does not tell its version"),
    ],
)
def test_what_is_no_etcd_of_today_is_refused(tmp_path: Path, body: bytes, sentence: str) -> None:
    url = f"http://127.0.0.1:{answering(body)}"
    assert sentence in refusal(ControllerSettings(data_dir=str(tmp_path), journal="etcd", etcd_urls=url))


def test_etcd_is_reached_by_tls_alone(own_etcd: EtcdMember, tmp_path: Path) -> None:
    names: Sequence[str] = ("-days", "2", "-nodes", "-subj", "/CN=etcd", "-addext", "subjectAltName=IP:127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(certificate), *names]
    subprocess.run(command, check=True, capture_output=True)
    url = own_etcd.url.replace("http:", "https:")
    files = ["--cert-file", str(certificate), "--key-file", str(key), "--trusted-ca-file", str(certificate)]
    own_etcd.start(
        [own_etcd], [*files, "--client-cert-auth", "--listen-client-urls", url, "--advertise-client-urls", url]
    )
    base = {"data_dir": str(tmp_path), "journal": "etcd", "etcd_urls": url}
    shown = {"etcd_cert_file": str(certificate), "etcd_key_file": str(key)}
    trusting = ControllerSettings(**base, **shown, etcd_ca_file=str(certificate))  # type: ignore[arg-type]
    with ExitStack() as stack:
        journal, _ = opened(stack, trusting)
        journal.append([ControllerStarted("c", 1, "t", 1)])
    assert len(everything(trusting)) == 1
    sentence = "do not believe each other's certificates"
    assert sentence in refusal(ControllerSettings(**base, etcd_ca_file=str(certificate)))  # type: ignore[arg-type]
    assert sentence in refusal(ControllerSettings(**base, **shown))  # type: ignore[arg-type]
    missing = ControllerSettings(**base, etcd_ca_file=str(tmp_path / "none"))  # type: ignore[arg-type]
    assert "etcd_ca_file" in refusal(missing)


def test_a_journal_moves_to_etcd_and_back(settings_of: Settings, tmp_path: Path) -> None:
    """With its indexes and its terms, and the one it comes from is out of use."""
    settings = msgspec.structs.replace(settings_of(), data_dir=str(tmp_path / "controller"))
    with closing(FileJournal(settings.data_dir)) as source:
        source.open()
        source.append([ControllerStarted("c", 3, "t3", 1), TopicCreated("t", "id", {})])
        source.append(records(1, 4))
    image, kept = to_etcd(settings)
    assert (image.metadata_offset, image.cluster_id, image.term_id) == (5, "c", "t3")
    assert not Path(settings.data_dir).exists()
    assert Path(kept).is_dir()
    with pytest.raises(InvalidRequest, match="does not exist"):
        to_etcd(settings)
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        assert journal.last_index == 5
        journal.append([ControllerStarted("c", 4, "t4", 6)])
    back = to_file(settings)
    assert (back.metadata_offset, back.controller_epoch, back.term_id) == (6, 4, "t4")
    assert back.topics.keys() == {"t"}
    with pytest.raises(InvalidRequest, match="nothing to move"):
        to_file(settings)
    with closing(FileJournal(settings.data_dir)) as found:
        assert found.open().snapshot_index == 6


def test_a_journal_does_not_move_from_under_who_decides_by_it(settings_of: Settings) -> None:
    settings = settings_of()
    with ExitStack() as stack:
        journal, _ = opened(stack, settings)
        journal.append(records(1, 2))
        journal.tend(1, lambda _: None)
        wait_until(lambda: journal.look(0).active is not None)
        with pytest.raises(InvalidRequest, match="stop all controllers first"):
            to_file(settings)


def test_a_journal_does_not_leave_from_under_who_begins_to_decide_meanwhile(
    settings_of: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody supervises the controllers, and starts one again. There would be two journals."""
    settings = msgspec.structs.replace(settings_of(), data_dir=str(tmp_path / "controller"))
    with ExitStack() as stack:
        opened(stack, settings)[0].append([ControllerStarted("c", 3, "t3", 1)])

    def begin(*_: object) -> None:
        with ExitStack() as stack:
            opened(stack, settings)[0].append([ControllerStarted("c", 4, "t4", 2)])

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "_check", begin)
        with pytest.raises(InvalidRequest, match="has begun to decide"):
            to_file(settings)
    assert not Path(settings.data_dir).exists()
    assert to_file(settings).controller_epoch == 4
