"""Many token streams at once, some of which nobody reads to the end."""

import asyncio
import os
import random

from server import NAME

STREAMS = 64
TOKENS = 24
# Far more than can be computed within the deadline below: those who leave must be noticed, not sat out.
ENDLESS = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}
RELEASE_MAX = 20
QUESTIONS = [f"Tell me a story about {thing}." for thing in ("a cat", "the sea", "two kings", "rain", "a lost key")]


def request(question, **options):
    messages = [{"role": "user", "content": question}]
    return {"model": NAME, "messages": messages, "temperature": 0, "max_tokens": TOKENS} | options


async def read(client, question, cut_after):
    """The text and how it ended; or, of an endless one, what came before we left, after `cut_after` chunks."""
    text, ending = "", None
    options = {} if cut_after is None else ENDLESS
    stream = await client.chat.completions.create(stream=True, **request(question, **options))
    try:
        chunks = 0
        while cut_after is None or chunks < cut_after:
            chunk = await anext(stream, None)
            if chunk is None:
                break
            chunks += 1
            for choice in chunk.choices:
                text += choice.delta.content or ""
                ending = choice.finish_reason or ending
    finally:
        await stream.close()
    return text, ending


async def read_all(server, plan):
    async with server.async_client() as client:
        tasks = [asyncio.create_task(read(client, question, cut)) for question, cut in plan]
        return await asyncio.wait_for(asyncio.gather(*tasks), timeout=300)


def test_readers_who_leave_take_nothing_with_them(server):
    """A third leaves at random points. The others get the text that they would have got alone, and no block stays held."""
    seed = int(os.environ.get("BATON_TEST_SEED", random.randrange(1 << 32)))
    print(f"BATON_TEST_SEED={seed}")
    dice = random.Random(seed)
    plan = [
        (dice.choice(QUESTIONS), dice.randrange(TOKENS) if index % 3 == 0 else None) for index in range(STREAMS)
    ]
    client = server.client()
    alone = {question: client.chat.completions.create(**request(question)).choices[0] for question in QUESTIONS}

    for (question, cut), (text, ending) in zip(plan, asyncio.run(read_all(server, plan))):
        want = alone[question]
        if cut is None:
            assert (text, ending) == (want.message.content, want.finish_reason)
        else:
            # It may go on where the other one found its end.
            assert want.message.content.startswith(text) or text.startswith(want.message.content)
    server.wait_until_nothing_is_held(RELEASE_MAX)


def test_requests_that_are_dropped_before_their_answer(server):
    """Cancelled while they wait or compute, before a byte came back."""

    async def drop_all():
        async with server.async_client() as client:
            ask = client.chat.completions.create
            tasks = [asyncio.create_task(ask(**request(question, **ENDLESS))) for question in QUESTIONS * 4]
            # Until all have arrived.
            deadline = asyncio.get_running_loop().time() + 30
            while server.metric("baton_requests_in_flight") == 0:
                assert asyncio.get_running_loop().time() < deadline, "no request arrived"
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(drop_all())
    server.wait_until_nothing_is_held(RELEASE_MAX)
