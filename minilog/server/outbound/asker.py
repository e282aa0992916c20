"""For whom this process asks others: the principal whose request is being carried out.

It goes along with whatever a request starts, so nobody hands it through. What a process does of its
own accord is done for nobody.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, TypeVar

from msgspec.structs import replace

from minilog.wire.group_messages import ForwardedGroupRequest
from minilog.wire.messages import Fetch, Message, Produce

ASKER: Final[ContextVar[str]] = ContextVar("asker", default="")
NAMED: Final = (Produce, Fetch, ForwardedGroupRequest)

M = TypeVar("M", bound=Message)


def in_the_name_of_its_asker(message: M) -> M:
    """What is passed on says for whom (R127). Changes of the cluster name who has asked anyway."""
    name = ASKER.get()
    if name and isinstance(message, NAMED) and not message.principal:
        return replace(message, principal=name)
    return message
