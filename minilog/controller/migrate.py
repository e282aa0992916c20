"""Moving a cluster's journal from the disk of its one controller to etcd, and back.

No controller runs meanwhile. On a disk its lock is held (R25). In etcd the term is taken (R120),
after a look whether somebody decides there. Brokers go on with their data. Indexes and terms stay
what they are, so brokers find the journal that they have followed. What was moved is read back
before the journal it comes from is put out of use.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress

from minilog.config import ControllerSettings
from minilog.controller.etcd.journal import EtcdJournal
from minilog.controller.journal import FileJournal, Replayed
from minilog.core.controller.shared.transaction import NotSent, Unsure
from minilog.core.image import ClusterImage
from minilog.errors import Deposed, InvalidRequest, RefusesToStart
from minilog.storage.disk import OsDisk


def to_etcd(settings: ControllerSettings) -> tuple[ClusterImage, str]:
    """(what was moved, where the journal before is kept). Raises InvalidRequest, RefusesToStart or
    StorageFailed, and then the journal on the disk is in use as before."""
    data_dir = os.path.abspath(settings.data_dir)
    if not os.path.isdir(data_dir):
        raise InvalidRequest(f"there is no journal in {data_dir}: that folder does not exist")
    with closing(FileJournal(data_dir)) as source:
        image = _image(source.open())
        if image.metadata_offset == 0:
            raise InvalidRequest(f"the journal in {data_dir} is empty: there is nothing to move")
        with closing(_opened(settings)) as target:
            target.open()
            if target.last_index:
                raise InvalidRequest(
                    f"{target.place} is a journal already, which ends at record {target.last_index}; choose another "
                    "etcd_prefix, or remove what lies below that one"
                )
            target.begin_with(image.metadata_offset, image.snapshot())
            with closing(_opened(settings)) as again:  # one that stands by may have begun to decide behind the snapshot
                _check(image, _image(again.read_all()[0]._replace(tail=[])), again.place)
            kept = _put_away(data_dir, "migrated")
            with suppress(Deposed):
                target.resign()
        return image, kept


def to_file(settings: ControllerSettings) -> ClusterImage:
    """What was moved. Raises as ``to_etcd``."""
    data_dir = os.path.abspath(settings.data_dir)
    with closing(_opened(settings)) as source:
        try:
            active = source.look(0).active
        except (NotSent, Unsure) as error:
            raise RefusesToStart(f"{source.place} cannot be read: {error}") from error
        if active is not None:
            raise InvalidRequest(f"the controller at {active.url} decides by this journal; stop all controllers first")
        image = _image(source.open())
        if image.metadata_offset == 0:
            raise InvalidRequest(f"{source.place} holds no journal: there is nothing to move")
        with closing(FileJournal(data_dir)) as target:
            target.open()
            if target.last_index:
                raise InvalidRequest(
                    f"{data_dir} holds a journal already, which ends at record {target.last_index}; name an empty folder "
                    "(data_dir)"
                )
            target.begin_with(image.metadata_offset, image.snapshot())
        with closing(FileJournal(data_dir)) as again:
            _check(image, _image(again.open()), data_dir)
        try:
            source.clear()
        except Deposed as error:
            kept = _put_away(data_dir, "unused")
            raise InvalidRequest(
                f"a controller has begun to decide by {source.place} meanwhile, so the journal stays there: stop all "
                f"controllers first, and whoever starts them again. What was copied lies in {kept}"
            ) from error
        return image


def _opened(settings: ControllerSettings) -> EtcdJournal:
    return EtcdJournal(settings, f"minilog controller migrate, process {os.getpid()}")


def _image(replayed: Replayed) -> ClusterImage:
    image = ClusterImage()
    if replayed.snapshot_index:
        image.load(replayed.snapshot_index, replayed.snapshot)
    for index, record in enumerate(replayed.tail, replayed.snapshot_index + 1):
        image.apply(index, record)
    return image


def _check(image: ClusterImage, copied: ClusterImage, place: str) -> None:
    if (image.metadata_offset, image.snapshot()) != (copied.metadata_offset, copied.snapshot()):
        raise RefusesToStart(f"what was written to {place} is not what was read; the journal before is in use still")


def _put_away(data_dir: str, why: str) -> str:
    """A controller that is started by mistake with the old settings finds no journal there."""
    number = 1
    while os.path.exists(f"{data_dir}.{why}-{number}"):
        number += 1
    kept, disk = f"{data_dir}.{why}-{number}", OsDisk()
    disk.rename(data_dir, kept)
    disk.fsync_dir(os.path.dirname(data_dir))
    return kept
