"""A whole round of cleaning in one call."""

from __future__ import annotations

from minilog.storage.compaction.cleaning_round import MAP_BYTES_MAX, Round, survey
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.log.log import PartitionLog


def clean_now(
    log: PartitionLog, now_ms: int, figures: CleaningFigures | None = None, map_bytes_max: int = MAP_BYTES_MAX
) -> bool:
    """A whole round in the calling thread; True when it was carried through. Errors as in
    ``Round``."""
    log.look(now_ms)
    dirt = survey(log, now_ms)
    round_ = Round(log, dirt.end_offset, now_ms, figures or CleaningFigures(), map_bytes_max=map_bytes_max)
    try:
        for group in round_.prepare():
            if (round_.clean(group) and not round_.install(group)) or round_.is_cancelled:
                return False
        return round_.complete()
    finally:
        round_.close()
        log.look(now_ms)
