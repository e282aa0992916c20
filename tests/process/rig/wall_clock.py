"""A wall clock of its own for a process: libfaketime, set from a file while the process runs. The
monotonic clock stays the machine's."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = [
    Path(folder) / "faketime" / "libfaketime.so.1"
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
]


def library() -> Path | None:
    """None where it is not installed (Debian: apt-get install faketime)."""
    return next((path for path in LIBRARIES if path.exists()), None)


def unavailable() -> str | None:
    """Why there can be no clocks of one's own here; None when there can."""
    return None if library() else "libfaketime is missing (Debian: apt-get install faketime)"


class WallClock:
    def __init__(self, file: Path) -> None:
        found = library()
        assert found is not None, "this test needs libfaketime"
        self.library, self._file = found, file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Ahead of the machine's clock."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead_s:+d}")
        written.replace(self._file)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
