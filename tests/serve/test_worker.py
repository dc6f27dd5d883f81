"""The worker's thread tells those that listen in a thread of theirs."""

import queue
import threading

from small_server import small

from llm.generation import BatchEngine, Request, Token
from llm.serve.worker import FAILED, Worker

BAD = (0,)


class Engine:
    """Gives every request one token a step, two in all."""

    def __init__(self):
        self.steps = {}

    @property
    def busy(self):
        return bool(self.steps)

    def add(self, request):
        if request.prompt == BAD:
            raise ValueError("no such prompt")
        self.steps[request] = 0

    def clear(self):
        self.steps = {}

    def step(self):
        tokens = []
        for request in list(self.steps):
            self.steps[request] += 1
            finish = "length" if self.steps[request] == 2 else None
            tokens.append(Token(request, self.steps[request], None, finish))
            if finish:
                del self.steps[request]
        return tokens


def test_all_tokens_of_a_step_are_told_at_once_and_elsewhere():
    handed, heard = queue.Queue(), []
    worker = Worker(Engine(), rows=3, waiting=0)
    requests = [Request((1,), 2) for _ in range(3)]
    worker.submit(requests, heard.append)
    worker.start(handed.put)
    for step in (1, 2):
        tell = handed.get(timeout=10)
        assert len(heard) == 3 * (step - 1)
        tell()
        assert [token.request for token in heard[-3:]] == requests
    worker.stop()
    assert handed.empty()
    assert worker.in_flight == 0


def test_a_refused_request_is_told_to_its_client_alone_and_the_text_of_another_goes_on():
    model, request = small(), Request([1, 2, 3], 20)
    alone = [token.id for token in BatchEngine(model, rows=1).run([request])]
    worker = Worker(BatchEngine(model, rows=3), rows=3, waiting=0)
    heard, refused, done = [], queue.Queue(), threading.Event()

    def hear(token):
        heard.append(token)
        if len(heard) == 5:
            worker.submit([Request([1], 4), Request([1] * 300, 4)], refused.put)
        if len(heard) == len(alone):
            done.set()

    worker.submit([request], hear)
    worker.start(lambda tell: tell())
    assert "300 tokens" in str(refused.get(timeout=10))
    assert done.wait(10)
    worker.stop()
    assert [token.id for token in heard] == alone
    assert refused.empty()
    assert worker.in_flight == 0


def test_a_request_whose_rule_fails_is_told_alone_and_the_text_of_another_goes_on():
    def raises(logits_1v, new):
        raise ValueError("no such rule")

    model, good = small(), Request([1, 2, 3], 20)
    alone = [token.id for token in BatchEngine(model, rows=1).run([good])]
    worker = Worker(BatchEngine(model, rows=3), rows=3, waiting=0)
    heard, failed = queue.Queue(), queue.Queue()
    worker.submit([good], heard.put)
    worker.submit([Request([1], 4, rules=[raises])], failed.put)
    worker.start(lambda tell: tell())
    assert str(failed.get(timeout=10)) == FAILED
    assert [heard.get(timeout=10).id for _ in alone] == alone
    worker.stop()
    assert failed.empty()
    assert worker.in_flight == 0


def test_what_the_engine_refuses_is_told_and_the_worker_works_on():
    heard = queue.Queue()
    worker = Worker(Engine(), rows=3, waiting=0)
    worker.start(lambda tell: tell())
    worker.submit([Request(BAD, 2), Request((1,), 2)], heard.put)
    assert [str(heard.get(timeout=10)) for _ in range(2)] == [FAILED, FAILED]
    assert worker.in_flight == 0
    worker.submit([Request((1,), 2)], heard.put)
    assert [heard.get(timeout=10).finish for _ in range(2)] == [None, "length"]
    worker.stop()


def test_calls_and_steps_take_turns_and_a_call_waits_for_no_more_than_a_step():
    did: list[str] = []

    class Recording(Engine):
        def step(self):
            did.append("step")
            return super().step()

    worker = Worker(Recording(), rows=9, waiting=9)
    worker.submit([Request((1,), 2)], lambda _: None)
    calls = [worker.call(lambda: did.append("call")) for _ in range(4)]
    worker.start(lambda tell: tell())
    for call in calls:
        call.result(timeout=10)
    worker.stop()
    assert did == ["call", "step", "call", "step", "call", "call"]
