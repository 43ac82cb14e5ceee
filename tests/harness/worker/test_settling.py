"""A worker answers only when its process rests: what its threads do after a turn is not in the next worker's turn."""

import json
import socket
from collections.abc import Iterator

import pytest

from lockstep_bench.harness.worker import worker
from lockstep_bench.harness.worker.worker import SETTLED_SECONDS, UNSETTLED_SECONDS, Worker, main, settle


class Clock:
    """Time that passes only in `sleep`, and a process that uses a whole CPU until a moment."""

    def __init__(self, busy_until: float) -> None:
        self.now, self.busy_until = 0.0, busy_until

    def perf_counter(self) -> float:
        """The time."""
        return self.now

    def process_time(self) -> float:
        """The CPU time that the process has used."""
        return min(self.now, self.busy_until)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.mark.parametrize(
    ("busy_until", "least", "most"),
    [
        (0.0, SETTLED_SECONDS, SETTLED_SECONDS),
        (0.2, 0.2, 0.2 + 2 * SETTLED_SECONDS),
        (60.0, UNSETTLED_SECONDS, UNSETTLED_SECONDS + SETTLED_SECONDS),
    ],
    ids=["rests", "spins on for a while", "never stops"],
)
def test_threads_that_spin_on_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, busy_until: float, least: float, most: float
) -> None:
    """As OpenMP's do for a while after a slice; those that never stop are given up after half a second."""
    clock = Clock(busy_until)
    for name in ("perf_counter", "process_time", "sleep"):
        monkeypatch.setattr(worker, name, getattr(clock, name))
    settle()
    assert least - 1e-9 <= clock.now <= most + 1e-9


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The conductor's end of a worker's connection; the worker's limit of file sizes is left out."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("sys.argv", ["worker", str(theirs.detach())])
    monkeypatch.setattr(worker, "setrlimit", lambda *_: None)
    with ours:
        yield ours


def test_a_turn_is_answered_after_its_threads_have_settled(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conductor gives the next worker its turn when it has the answer: until then nothing has been sent."""
    happened: list[str] = []

    class Turns(Worker):
        """A worker that has one kind of turn."""

        def turn(self) -> dict[str, bool]:
            """Do nothing."""
            happened.append("turn")
            return {"done": True}

    def settle_unanswered() -> None:
        with pytest.raises(BlockingIOError):
            connection.recv(1, socket.MSG_DONTWAIT)
        happened.append("settled")

    monkeypatch.setattr(worker, "settle", settle_unanswered)
    connection.sendall(b'{"do": "turn"}\n')
    connection.shutdown(socket.SHUT_WR)
    main(Turns())
    assert happened == ["turn", "settled"]
    assert json.loads(connection.recv(1000)) == {"done": True}
