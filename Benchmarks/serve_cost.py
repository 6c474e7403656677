#!/usr/bin/env python3
"""What a server costs beside its engine: the same prompts through `monet serve` and `monet generate --prompts`, in turns.

    Benchmarks/serve_cost.py http://127.0.0.1:8080 --monet .build/release/monet --model big
"""
import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

import aiohttp


async def one(session, base, prompt, tokens):
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}
    async with session.post(base + "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        count = 0
        async for line in answer.content:
            if line.startswith(b"data: {"):
                count = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", count)
        return count


async def served(base, prompts, tokens):
    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        began = time.perf_counter()
        counts = await asyncio.gather(*(one(session, base, prompt, tokens) for prompt in prompts))
        return sum(counts) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("--monet", default="monet")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    generate = [arguments.monet, "generate", "--model", arguments.model, "--greedy", "--batch-invariant"]

    def seconds(*more):
        began = time.perf_counter()
        subprocess.run(generate + list(more), check=True, capture_output=True)
        return time.perf_counter() - began

    for clients in map(int, arguments.clients.split(",")):
        engine, server = [], []
        for round in range(arguments.rounds):
            chance = random.Random(1000 * clients + round)
            prompts = [[chance.randint(10, 999) for _ in range(16)] for _ in range(clients)]
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "prompts.jsonl")
                with open(path, "w") as file:
                    file.writelines(json.dumps({"token_ids": prompt}) + "\n" for prompt in prompts)
                opening = seconds("--token-ids", "5", "-n", "1")
                spent = seconds("--prompts", path, "-n", str(arguments.tokens), "--ignore-eos", "--out", path + ".out")
            engine.append(clients * arguments.tokens / (spent - opening))
            server.append(asyncio.run(served(arguments.server.rstrip("/"), prompts, arguments.tokens)))
        ratios = [s / e for s, e in zip(server, engine)]
        print(f"{clients:3} clients  engine {statistics.median(engine):7.1f} tokens/s, server {statistics.median(server):7.1f}, "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


main()
