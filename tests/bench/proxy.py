"""A TCP proxy that counts connections and can hold back every byte, as a long line would: it knows nothing of TLS."""

import asyncio
import threading
from collections import deque


class _Side(asyncio.Protocol):
    """One end of a connection; what it receives leaves at the other end after the delay."""

    def __init__(self, proxy):
        self.proxy, self.transport, self.other = proxy, None, None
        self.held, self.timer, self.extra = deque(), None, 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.hold(data)

    def connection_lost(self, error):
        self.hold(None)

    def hold(self, data):
        loop = self.proxy.loop
        if not self.proxy.delay and self.other.transport and not self.held:
            self.pass_on(data)
            return
        # The first bytes also wait for what the handshake of TCP takes on such a line: there and back.
        self.held.append((loop.time() + self.proxy.delay + self.extra, data))
        self.extra = 0
        if self.timer is None:
            self.timer = loop.call_at(self.held[0][0], self.let_go)

    def let_go(self):
        self.timer = None
        now = self.proxy.loop.time()
        while self.held and self.held[0][0] <= now + 0.0005:
            if self.other.transport is None:
                self.timer = self.proxy.loop.call_later(0.001, self.let_go)
                return
            self.pass_on(self.held.popleft()[1])
        if self.held:
            self.timer = self.proxy.loop.call_at(self.held[0][0], self.let_go)

    def pass_on(self, data):
        if data is not None:
            self.other.transport.write(data)
        elif self.other.transport:
            self.other.transport.close()


class _Accepted(_Side):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.proxy.connections += 1
        self.other = _Side(self.proxy)
        self.other.other = self
        self.extra = 2 * self.proxy.delay
        task = self.proxy.loop.create_task(self.proxy.loop.create_connection(lambda: self.other, "127.0.0.1", self.proxy.to))
        task.add_done_callback(lambda done: done.exception() and transport.close())


class Proxy:
    """Use as a context manager. `delay` is one way, in seconds."""

    def __init__(self, to, delay=0.0):
        self.to, self.delay, self.connections, self.port = to, delay, 0, None

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(self.loop.create_server(lambda: _Accepted(self), "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        def end():
            self.server.close()
            self.loop.stop()

        self.loop.call_soon_threadsafe(end)
        self.thread.join(5)

    def take(self):
        """Connections since the last call."""
        count, self.connections = self.connections, 0
        return count
