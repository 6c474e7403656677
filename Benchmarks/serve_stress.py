#!/usr/bin/env python3
"""Many streams on `monet serve` at once, a third of them cancelled, some by killed connections and slow readers.

Every finished text must equal the text alone; the server's resident memory and the texts in progress are shown.

    python3 -m pip install aiohttp
    Benchmarks/serve_stress.py http://127.0.0.1:8080 --minutes 10 --streams 100 --pid PID
"""
import argparse
import asyncio
import json
import os
import random
import time

import aiohttp


def resident(pid):
    if not pid:
        return 0
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def text_of(session, base, body, stop_after=None, slow=0.0, kill=False):
    text = ""
    count = 0
    async with session.post(base + "/v1/completions", json=body) as answer:
        if answer.status != 200:
            return answer.status, text
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return 500, text
            text += event["choices"][0]["text"] if event["choices"] else ""
            count += 1
            if slow:
                await asyncio.sleep(slow)
            if stop_after is not None and count >= stop_after:
                if kill and answer.connection is not None:
                    answer.connection.transport.abort()
                return 0, text
    return 200, text


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--pid", type=int, default=0)
    arguments = parser.parse_args()
    base = arguments.base.rstrip("/")
    chance = random.Random(1)
    words = "And God said unto the shark a kind of tree import def return large city in people".split()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)) as session:
        async with session.get(base + "/v1/models") as answer:
            models = [entry["id"] for entry in (await answer.json())["data"]][:2]
        bodies = []
        for number in range(60):
            prompt = " ".join(chance.choice(words) for _ in range(chance.randint(1, 90)))
            bodies.append({
                "model": chance.choice(models), "prompt": prompt, "max_tokens": chance.randint(1, 120), "seed": number,
                "temperature": chance.choice([0, 0.7, 1.0]), "stream": True, "ignore_eos": chance.random() < 0.5,
                **({"stop": ["the"]} if chance.random() < 0.2 else {}),
            })
        alone = [(await text_of(session, base, body))[1] for body in bodies]
        counts = {"equal": 0, "different": 0, "cancelled": 0, "busy": 0, "failed": 0}
        end = time.monotonic() + 60 * arguments.minutes

        async def client(number):
            own = random.Random(number)
            while time.monotonic() < end:
                place = own.randrange(len(bodies))
                cancels = own.random() < 1 / 3
                try:
                    status, text = await text_of(
                        session, base, bodies[place], stop_after=own.randint(1, 20) if cancels else None,
                        slow=0.05 if own.random() < 0.05 else 0, kill=own.random() < 0.5)
                except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                    counts["failed"] += 1
                    print("failed:", type(error).__name__, error)
                    continue
                if status == 0:
                    counts["cancelled"] += 1
                    if not alone[place].startswith(text):
                        counts["different"] += 1
                elif status == 429:
                    counts["busy"] += 1
                    await asyncio.sleep(0.2)
                elif status != 200:
                    counts["failed"] += 1
                else:
                    counts["equal" if text == alone[place] else "different"] += 1

        async def watch():
            while time.monotonic() < end:
                await asyncio.sleep(min(15, 15 * arguments.minutes))
                print(f"{(end - time.monotonic()) / 60:5.1f} min left  {resident(arguments.pid) / 1024:7.1f} MiB  {counts}", flush=True)

        await asyncio.gather(watch(), *(client(number) for number in range(arguments.streams)))
        for _ in range(50):
            async with session.get(base + "/metrics") as answer:
                lines = [line for line in (await answer.text()).split("\n") if line.startswith(("monet_texts_running", "monet_texts_waiting", "monet_requests_in"))]
            if all(line.endswith(" 0") for line in lines):
                break
            await asyncio.sleep(0.1)
        print(counts, *lines, f"{resident(arguments.pid) / 1024:.1f} MiB", sep="\n")
        if counts["different"] or counts["failed"] or not all(line.endswith(" 0") for line in lines):
            raise SystemExit(1)


os.environ.setdefault("PYTHONUNBUFFERED", "1")
asyncio.run(main())
