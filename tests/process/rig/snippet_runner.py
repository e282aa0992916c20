"""Runs what ``snippets.py`` sends, one JSON object a line, and answers each with what was printed
and whether all is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

END = "\x01end\x01"
"""Printed by the shell after each block."""


class Runner:
    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def sh(self, text: str) -> tuple[bool, str]:
        """``set -e`` ends the shell at the first command that fails, so the end mark does not
        come."""
        assert self.bash.stdin is not None
        assert self.bash.stdout is not None
        with tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False) as file:
            file.write(text)
        self.bash.stdin.write(f"set -e; source {file.name} < /dev/null; set +e; printf '{END}\\n'\n".encode())
        self.bash.stdin.flush()
        printed = ""
        for line in self.bash.stdout:
            printed += line.decode(errors="replace")
            if printed.endswith(END + "\n"):
                Path(file.name).unlink()
                return True, printed.removesuffix(END + "\n")
        return False, printed

    def python(self, text: str, place: str) -> tuple[bool, str]:
        with tempfile.TemporaryFile("w+") as file:
            standard = os.dup(1), os.dup(2)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                exec(compile(text, place, "exec"), self.names)
                fine = True
            except BaseException:
                traceback.print_exc()
                fine = False
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for number, copy in enumerate(standard, 1):
                    os.dup2(copy, number)
                    os.close(copy)
            file.seek(0)
            return fine, file.read()


def main() -> None:
    runner = Runner()
    for line in sys.stdin:
        question = json.loads(line)
        if "begin" in question:
            runner.bash.kill()
            runner.bash.wait()
            runner = Runner()
            fine, printed = True, ""
        elif question["language"] == "sh":
            fine, printed = runner.sh(question["text"])
        else:
            fine, printed = runner.python(question["text"], question["place"])
        print(json.dumps({"fine": fine, "printed": printed}), flush=True)


if __name__ == "__main__":
    main()
