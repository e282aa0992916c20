"""Put this folder on PYTHONPATH: no module that only POSIX has can be imported, and ``os`` has no
fork."""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

HIDDEN = {"fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog"}


class Hidden(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname in HIDDEN:
            raise ModuleNotFoundError(f"No module named {fullname!r}: hidden", name=fullname)
        return None


sys.meta_path.insert(0, Hidden())
for name in HIDDEN:
    sys.modules.pop(name, None)
for name in ("fork", "register_at_fork", "getuid", "geteuid"):
    if hasattr(os, name):
        delattr(os, name)
