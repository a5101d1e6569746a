"""A TCP proxy on loopback that can be cut."""

import contextlib
import socket
import threading

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 5


class CuttableProxy:
    """Forwards connections to a loopback port until it is cut.

    While it is cut, it accepts connections and does not answer them, as a firewall that drops packets.
    """

    def __init__(self, upstream_port):
        self.upstream_port = upstream_port
        self.passing = threading.Event()
        self.passing.set()
        self.lock = threading.Lock()
        self.sockets = set()

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()
        return self

    def __exit__(self, *_):
        # This wakes the thread that accepts.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.accepting.join(CONNECT_SECONDS)
        self.close_connections()
        self.passing.set()

    def cut(self, close):
        """Stops forwarding. Closes the open connections if `close` is set; otherwise they hang."""
        self.passing.clear()
        if close:
            self.close_connections()

    def mend(self, close):
        """Forwards again. If `close` is set, closes the connections that were opened during the cut.

        Otherwise all connections go on, as after lost packets were sent again.
        """
        if close:
            self.close_connections()
        self.passing.set()

    def close_connections(self):
        with self.lock:
            for connection in self.sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), self.tracked(client):
            self.passing.wait()
            upstream = socket.create_connection(("127.0.0.1", self.upstream_port), timeout=CONNECT_SECONDS)
            upstream.settimeout(None)
            with self.tracked(upstream):
                back = threading.Thread(target=self.pump, args=(upstream, client), daemon=True)
                back.start()
                self.pump(client, upstream)
                back.join()

    @contextlib.contextmanager
    def tracked(self, connection):
        """Registers a connection for `close_connections` and closes it at the end."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.sockets.add(connection)
        try:
            yield
        finally:
            with self.lock:
                self.sockets.discard(connection)
            connection.close()

    def pump(self, source, sink):
        """Forwards one direction. At its end, ends the other direction too."""
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self.passing.wait()
                sink.sendall(data)
        for connection in [source, sink]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
