"""Templates that somebody else wrote are programs: none runs for long, or takes much memory."""

import multiprocessing
import os
import time

import pytest

from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec, ChatTemplate
from llm.tokenizer.chat import CHATML, PAIR, PLAIN, is_ours, with_end, without_generation
from llm.tokenizer.rendering import RenderElsewhere, RenderingError, render_here
from llm.tokenizer.rendering_process import MOST_SECONDS

TOKENIZER = ByteSpec().build()
TALK = [{"role": "user", "content": "naïve 猫\ud800"}]
LINES = "{% for message in messages %}{{ message.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
TRAP = "{% if messages[0].content == 'trap' %}BODY{% endif %}" + LINES
BODIES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'a' * 10 ** 10 }}",
    "doubling": "{% set ns = namespace(t='aa') %}{% for _ in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "a width": "{{ '%999999999d' | format(5) }}",
    "a large number": "{{ 9 ** (387420489 * messages | length) }}",
    "no end to macros": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "many letters": "{{ 'a' * 10 ** 7 }}",
}


def test_another_process_writes_what_this_one_does():
    here, elsewhere = render_here(LINES), RenderElsewhere(LINES)
    for ask in (False, True):
        assert elsewhere(TALK, ask) == here(TALK, ask)


def test_only_the_templates_of_this_project_are_rendered_in_the_process_that_asks():
    for template in (CHATML, PLAIN, PAIR):
        assert is_ours(template)
        assert is_ours(without_generation(with_end(template, TOKENIZER)))
        assert not is_ours(template + "{{ 1 }}")
        assert not is_ours("{% set eos_token = 'a' * 9 %}" + template)


@pytest.mark.parametrize("name", BODIES)
def test_a_template_that_takes_too_much_is_stopped_and_the_next_chat_is_rendered(name):
    template = ChatTemplate(TOKENIZER.with_chat_template(TRAP.replace("BODY", BODIES[name])))
    before = time.process_time() + sum(os.times()[2:4])
    with pytest.raises(DataError, match="takes no such chat: "):
        template.prompt([{"role": "user", "content": "trap"}])
    after = time.process_time() + sum(os.times()[2:4])
    assert after - before < MOST_SECONDS + 1.5  # of which some go to another process's start
    said = template.prompt([{"role": "user", "content": "hello"}])
    assert TOKENIZER.decode(said) == "hello\n>"


def test_a_template_that_is_costly_to_read_is_refused_at_once():
    with pytest.raises(ConfigError, match="can't be read: it takes too long, or too much memory"):
        ChatTemplate(TOKENIZER.with_chat_template("{{ 9 ** (9 ** 9) }}"))


def rendered(render, results):
    results.put(render(TALK, True))


def test_a_process_that_forks_has_a_renderer_of_its_own():
    render = RenderElsewhere(LINES)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    others = [context.Process(target=rendered, args=(render, results)) for _ in range(2)]
    for other in others:
        other.start()
    here = [render(TALK, True) for _ in range(50)]
    assert {*here, *(results.get(timeout=30) for _ in others)} == {here[0]}
    for other in others:
        other.join()


def test_templates_that_are_stopped_again_and_again_leave_no_pipes_open():
    stopped = RenderElsewhere(TRAP.replace("BODY", BODIES["loops"]))
    assert stopped(TALK, True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RenderingError, match="too long"):
            stopped([{"role": "user", "content": "trap"}], False)
        assert stopped(TALK, True) == render_here(LINES)(TALK, True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_stays_behind():
    render = RenderElsewhere(LINES)
    process = render._process
    del render
    assert process.poll() is not None
