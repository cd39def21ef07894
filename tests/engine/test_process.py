"""The loop around the engine, in this process: who is sent what, and what it does with messages it can't use."""

import itertools
import os

import pytest
import zmq

from zeroshot.engine.messages import Abort, Generate, Launch, decode_outputs, encode
from zeroshot.engine.process import EngineProcess, probe

GENERATION = 3
_numbers = itertools.count()


class Wire:
    """An EngineProcess on sockets within this process, stepped by hand; each client hears its own topic only."""

    def __init__(self, engine):
        number = next(_numbers)
        addresses = f"inproc://commands-{number}", f"inproc://outputs-{number}"
        self.process = EngineProcess(engine, Launch(GENERATION, os.getppid(), *addresses, settings=b"{}"))
        context = zmq.Context.instance()
        self.commands = context.socket(zmq.PUSH)
        self.commands.connect(addresses[0])
        self.clients = {}
        for client_id in (b"one", b"two"):
            self.clients[client_id] = context.socket(zmq.SUB)
            self.clients[client_id].subscribe(client_id)
            self.clients[client_id].connect(addresses[1])

    def send(self, *commands):
        for command in commands:
            self.commands.send(encode(command))
        self.process._receive(timeout_ms=1000)

    def step(self):
        """The outputs each client is sent for one step: at most one message."""
        self.process._publish(self.process.engine.step(), now=0.0, everything=False)
        return self.received()

    def received(self):
        messages = {}
        for client_id, socket in self.clients.items():
            if socket.poll(20):
                topic, payload = socket.recv_multipart()
                assert topic == client_id
                messages[client_id] = decode_outputs(payload)
            assert not socket.poll(0), "more than one message for a step"
        return messages

    def close(self):
        for socket in (self.commands, *self.clients.values(), self.process.commands, self.process.outputs):
            socket.close(linger=0)


@pytest.fixture
def wire(checkpoint, load_engine):
    wire = Wire(load_engine(checkpoint().folder))
    wire.step()  # subscriptions have arrived when the first poll is over
    yield wire
    wire.close()


def generate(client_id, request, generation=GENERATION, is_patient=False):
    return Generate(client_id, generation, request, is_patient)


def test_each_client_is_sent_its_own_tokens_in_one_message(wire, request_of):
    wire.send(
        generate(b"one", request_of("a", [1, 2], max_tokens=2, ignore_eos=True)),
        generate(b"two", request_of("b", [3], max_tokens=3, ignore_eos=True)),
        generate(b"one", request_of("c", [4, 5, 6], max_tokens=2, ignore_eos=True)),
    )
    first = wire.step()
    assert {client_id: [o.request_id for o in outputs] for client_id, outputs in first.items()} == {
        b"one": ["a", "c"],
        b"two": ["b"],
    }
    second = wire.step()
    assert [output.finish_reason for output in second[b"one"]] == ["length", "length"]
    assert wire.step().keys() == {b"two"}
    assert len(wire.process.outbox) == 0
    assert not wire.process.engine.has_work


def test_who_waits_for_the_whole_text_is_sent_two_messages(wire, request_of):
    wire.send(generate(b"one", request_of("a", [1, 2], max_tokens=5, ignore_eos=True), is_patient=True))
    (first,) = wire.step()[b"one"]
    assert len(first.token_ids) == 1
    assert [wire.step() for _ in range(3)] == [{}, {}, {}]
    (rest,) = wire.step()[b"one"]
    assert (len(rest.token_ids), rest.finish_reason) == (4, "length")
    assert len(wire.process.outbox) == 0


def test_choices_that_end_in_the_same_step(wire, request_of):
    wire.send(generate(b"one", request_of("a", [1], n=3, max_tokens=1, temperature=1.0, ignore_eos=True)))
    outputs = wire.step()[b"one"]
    assert [(o.choice_index, o.finish_reason) for o in outputs] == [(0, "length"), (1, "length"), (2, "length")]
    assert len(wire.process.outbox) == 0


def test_a_request_that_is_refused_is_told_so(wire, request_of):
    wire.send(
        generate(b"one", request_of("long", [1] * 120, max_tokens=20)),
        generate(b"two", request_of("good", [1], max_tokens=1, ignore_eos=True)),
    )
    (refusal,) = wire.received()[b"one"]
    assert (refusal.request_id, refusal.finish_reason) == ("long", "error")
    assert refusal.error_code == "context_length_exceeded"
    assert "140" in refusal.error_message
    assert wire.step()[b"two"][0].finish_reason == "length"
    assert len(wire.process.outbox) == 0


def test_what_was_meant_for_an_earlier_engine_is_ignored(wire, request_of):
    wire.send(generate(b"one", request_of("a", [1], max_tokens=1), generation=GENERATION - 1))
    assert not wire.process.engine.has_work
    wire.send(generate(b"one", request_of("a", [1], max_tokens=5)))
    wire.send(Abort(b"one", GENERATION - 1, "a"))
    assert wire.process.engine.is_active("a")


def test_abort(wire, request_of):
    wire.send(generate(b"one", request_of("a", [1, 2], n=2, max_tokens=50, temperature=1.0, ignore_eos=True)))
    wire.step()
    wire.send(Abort(b"one", GENERATION, "a", choice_index=1))
    assert [output.choice_index for output in wire.step()[b"one"]] == [0]
    wire.send(Abort(b"one", GENERATION, "a"), Abort(b"one", GENERATION, "never seen"))
    assert not wire.process.engine.has_work
    assert len(wire.process.outbox) == 0
    stats = wire.process.engine.stats()
    assert stats.num_free_kv_blocks == stats.num_kv_blocks
    assert wire.step() == {}


def test_the_probe_generates_one_token_and_leaves_nothing(checkpoint, load_engine):
    engine = load_engine(checkpoint().folder)
    probe(engine)
    assert engine.stats().generation_tokens_total == 1
    assert not engine.has_work
    assert engine.stats().num_free_kv_blocks == engine.stats().num_kv_blocks


def test_a_probe_that_fails_says_why(checkpoint, load_engine, monkeypatch):
    engine = load_engine(checkpoint().folder)
    engine.model.wpe[0] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        probe(engine)
