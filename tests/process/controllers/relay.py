"""A way between two processes that can be cut: what is sent goes nowhere, and nobody is told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._is_refusing = self._is_closed = False
        self._cut = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def cut(self) -> None:
        self._cut.set()

    def heal(self) -> None:
        """What was open has lost bytes, so it is closed."""
        if self._cut.is_set():
            self._cut.clear()
            self._drop()

    def close(self) -> None:
        self._is_closed = True
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _refuse(self) -> None:
        with self._lock:
            if self._is_refusing or self._is_closed:
                return
            self._is_refusing = True
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        while not self._is_closed:
            with contextlib.suppress(OSError):
                socket.create_connection(self._target, 2.0).close()
                break
            time.sleep(0.02)
        with self._lock:
            if not self._is_closed:
                self._listener = socket.create_server(("127.0.0.1", self._port))
                self._is_refusing = False
                threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Where nobody listens there, nobody listens here, until somebody does there again."""
        try:
            far = socket.create_connection(self._target, 2.0)
        except OSError:
            near.close()
            self._refuse()
            return
        far.settimeout(None)
        with self._lock:
            self._open |= {near, far}
        pumps = [threading.Thread(target=self._pump, args=pair, daemon=True) for pair in ((near, far), (far, near))]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._cut.is_set():
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
