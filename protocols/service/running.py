"""Run a service until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from protocols.service.application import application
from protocols.service.service import Service
from protocols.service.settings import Settings
from protocols.service.web.answers import ALWAYS, Headed
from protocols.service.web.connections import Connections
from protocols.service.web.deadline import DeadlineProtocol
from protocols.service.web.descriptors import room_for
from protocols.service.web.notify import notify
from slots.errors import StorageError

_SILENCES = 3  # as long as so many deadlines what was sent may stay unacknowledged, whatever the connection does
_TURN_SECONDS, _TURNS = 0.1, 20  # without a request for one turn connections are closed, and after all of them anyway
_GRACE_SECONDS = 15  # for requests that are being answered when the service is told to stop


def run(settings: Settings, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Parameters
    ----------
    settings : Settings
        What to serve and how.
    started : callable
        Told the service's address when it takes requests.

    Raises
    ------
    SlotsError
        If a model, the database or the address cannot be used.
    """
    listening = listen(settings)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_signal(settings, listening, started))


async def _until_signal(settings: Settings, listening: socket.socket, started: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await serve(settings, listening, started=started, stopping=stopping)


async def serve(
    settings: Settings, listening: socket.socket, *, started: Callable[[str], None], stopping: asyncio.Event
) -> None:
    """Serve in the running event loop until an event is set, then finish what was accepted.

    Parameters
    ----------
    settings : Settings
        What to serve and how.
    listening : socket
        As `listen` bound it; closed at the end.
    started : callable
        Told the service's address when it takes requests.
    stopping : asyncio.Event
        Set by whoever wants it to stop.

    Raises
    ------
    StorageError
        If another service has taken the database over.
    """
    service = await asyncio.to_thread(Service.open, settings)
    server = _Server(_config(service))
    await service.start()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    host, port = listening.getsockname()[:2]
    started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    notify("READY=1")
    waiting = [asyncio.create_task(it.wait()) for it in (stopping, service.ousted)]
    await asyncio.wait([*waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    service.ready = False  # load balancers see it before connections are refused
    await asyncio.sleep(settings.drain_seconds)
    service.ending.set()
    server.should_exit = True
    try:
        await serving
    finally:
        for it in waiting:
            it.cancel()
        await service.stop()
        listening.close()
    if service.lost:
        raise StorageError(service.lost)


def listen(settings: Settings) -> socket.socket:
    """Bind the address of a service, before models are loaded: that it is taken should be said at once.

    Parameters
    ----------
    settings : Settings
        Names the address.

    Returns
    -------
    socket

    Raises
    ------
    StorageError
        If it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections have it from here: other ends may vanish in silence
        silence = round(1000 * _SILENCES * settings.limits.request_seconds)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise StorageError(
            f"The address {settings.host}:{settings.port} cannot be listened on: {error.strerror or error}. "
            "Name another with --host and --port."
        ) from error
    return listening


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _config(service: Service) -> uvicorn.Config:
    limits = service.settings.limits
    return uvicorn.Config(
        Headed(application(service), service),
        http=type(
            "Deadline",
            (DeadlineProtocol,),
            {"seconds": limits.request_seconds, "others": Connections(room_for(limits.connections))},
        ),
        ws="none",
        lifespan="off",
        log_level="error",  # what is no request is answered, and not worth a line: anybody could fill a disk with them
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=list(ALWAYS),
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=max(5, round(limits.request_seconds) + 1),  # ours is the one that counts
    )


class _Server(uvicorn.Server):
    """The server without its own signal handlers: ours say first that the service is not ready any more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing new, answer what was accepted, and only then close connections on which nothing comes.

        The system completes connections before anybody accepts them; those that wait are taken in. From here on every
        answer says that its connection ends, so that clients who ask on and on come to an end; a connection on which
        nothing was asked for a moment is closed.
        """
        waiting = [it.dup() for it in sockets or []]
        for server in self.servers:
            server.close()
        for it in waiting:
            await self._take_in(it)
        answered = -1
        for _ in range(_TURNS):
            if not self.server_state.connections or self.server_state.total_requests == answered:
                break
            answered = self.server_state.total_requests
            await asyncio.sleep(_TURN_SECONDS)
        await super().shutdown(sockets)

    async def _take_in(self, listening: socket.socket) -> None:
        """Serve the connections that nobody has accepted yet, and close the socket that they came to.

        They are accepted in one go: were one answered in between, its client could come again at once, and on a busy
        machine there would always be another.
        """
        taken: list[socket.socket] = []
        with listening, contextlib.suppress(OSError):  # BlockingIOError: that was the last one
            listening.setblocking(False)
            while len(taken) < self.config.backlog:
                taken.append(listening.accept()[0])
        for accepted in taken:
            accepted.setblocking(False)
            with contextlib.suppress(OSError):  # its client is gone already
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made
