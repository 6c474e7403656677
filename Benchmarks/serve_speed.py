#!/usr/bin/env python3
"""Throughput and time to the first token of OpenAI-compatible servers, in turns.

    Benchmarks/serve_speed.py monet=http://127.0.0.1:8080 llama=http://127.0.0.1:8090 --clients 1,8,32 --tokens 64
"""
import argparse
import asyncio
import json
import random
import statistics
import time

import aiohttp


async def one(session, base, prompt, tokens):
    began = time.perf_counter()
    first = None
    count = 0
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
            "stream_options": {"include_usage": True}}
    async with session.post(base + "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if event["choices"]:
                    first = first or time.perf_counter() - began
                # A chunk may hold several tokens, or none: bytes of a character are sent once it is whole.
                if event.get("usage"):
                    count = event["usage"]["completion_tokens"]
    return first, count


async def measure(base, clients, tokens, length, seed):
    # Token ids, so that every server reads as many tokens whatever its tokenizer.
    chance = random.Random(seed)
    prompts = [[chance.randint(10, 999) for _ in range(length)] for _ in range(clients)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=1200)) as session:
        began = time.perf_counter()
        results = await asyncio.gather(*(one(session, base, prompt, tokens) for prompt in prompts))
        seconds = time.perf_counter() - began
    firsts = sorted(first for first, _ in results if first is not None)
    return sum(count for _, count in results) / seconds, statistics.median(firsts), firsts[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers", nargs="+", help="NAME=ADDRESS")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    servers = [server.split("=", 1) for server in arguments.servers]
    for clients in map(int, arguments.clients.split(",")):
        found = {name: [] for name, _ in servers}
        for round in range(arguments.rounds):
            for name, base in servers:
                found[name].append(asyncio.run(measure(base.rstrip("/"), clients, arguments.tokens, arguments.prompt_tokens, 100 * clients + round)))
        for name, values in found.items():
            rate, middle, last = (statistics.median(column) for column in zip(*values))
            print(f"{clients:3} clients  {name:12} {rate:8.1f} tokens/s   first token {1000 * middle:7.0f} ms, last of all {1000 * last:7.0f} ms", flush=True)


main()
