#!/usr/bin/env python3
"""Sends malformed requests to `monet serve`: broken HTTP, JSON, UTF-8, numbers at their limits.

Every answer must be a status below 500 with OpenAI's error object, and the server must still be healthy at the end.

    Benchmarks/serve_fuzz.py http://127.0.0.1:8080 --requests 24000
"""
import argparse
import collections
import concurrent.futures
import json
import random
import socket
import urllib.parse

NUMBERS = ["-1", "0", "1", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e308",
           "1e309", "-0", "0.5", "1e-400", "NaN", "Infinity", "null", "true", "\"5\"", "[]", "{}", "[1]", "\"\"", "1" * 400]
TEXTS = ["\"\"", "\"a\"", "\"\\u0000\"", "\"\\ud800\"", "\"\u202e\"", "\"" + "a" * 5000 + "\"", "\"</script>\"", "\"'; DROP TABLE note;--\""]
KEYS = ["model", "prompt", "max_tokens", "temperature", "top_p", "n", "stream", "stop", "seed", "logprobs", "echo",
        "best_of", "presence_penalty", "frequency_penalty", "logit_bias", "top_k", "min_p", "repetition_penalty",
        "stream_options", "monet", "messages", "max_completion_tokens", "top_logprobs", "response_format", "tokens",
        "text", "without", "experts", "name", "strengths", "note", "tags", "foo", "__proto__", ""]
POSTS = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/apply-template", "/api/experts/fired",
         "/api/experts/summaries", "/api/masks", "/api/masks/file", "/api/damage", "/api/experts/0/1/note",
         "/api/experts/0/1/scores"]
GETS = ["/v1/models/%ff", "/api/experts?limit=-1", "/api/experts/..%2f/1", "/api/results/file?name=../../etc/passwd",
        "/api/results/file?name=%00", "/api/masks/%2e%2e%2f", "/api/experts?text=%25%25%5c", "/%c0%ae%c0%ae/", "//", "/?",
        "/api/experts?offset=99999999999999999999", "/api/experts?min_frequency=nan", "/api/experts?sort=mean;--"]


def value(chance, depth=0):
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(NUMBERS)
    if kind < 0.7 or depth > 3:
        return chance.choice(TEXTS)
    if kind < 0.85:
        return "[" + ",".join(value(chance, depth + 1) for _ in range(chance.randint(0, 4))) + "]"
    return "{" + ",".join(json.dumps(chance.choice(KEYS)) + ":" + value(chance, depth + 1) for _ in range(chance.randint(0, 4))) + "}"


def body(chance):
    kind = chance.random()
    if kind < 0.08:
        return bytes(chance.randrange(256) for _ in range(chance.randint(0, 200)))
    if kind < 0.12:
        return b"[" * chance.randint(1, 100000)
    text = "{" + ",".join(json.dumps(chance.choice(KEYS)) + ":" + value(chance) for _ in range(chance.randint(0, 6))) + "}"
    if kind < 0.4:
        text = '{"prompt": "a", "max_tokens": 1, ' + json.dumps(chance.choice(KEYS)) + ": " + value(chance) + "}"
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(chance.choice([0, 0, 0, 1, 3])):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def request(chance):
    kind = chance.random()
    if kind < 0.08:
        return bytes(chance.randrange(256) for _ in range(chance.randint(1, 300))) + b"\r\n\r\n"
    if kind < 0.12:
        return b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * chance.choice([10, 30000, 90000]) + b"\r\nConnection: close\r\n\r\n"
    if kind < 0.2:
        return ("GET " + chance.choice(GETS) + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").encode()
    content = body(chance)
    head = [chance.choice(["POST"] * 8 + ["PUT", "GET", "DELETE", "BREW"]) + " " + chance.choice(POSTS) + " HTTP/1.1",
            "Host: " + chance.choice(["127.0.0.1"] * 9 + ["evil.example"]), "Connection: close",
            "Content-Type: " + chance.choice(["application/json"] * 9 + ["text/plain"])]
    kind = chance.random()
    if kind < 0.8:
        head.append(f"Content-Length: {len(content)}")
    elif kind < 0.85:
        head.append("Content-Length: " + chance.choice(["-1", "x", "99999999999999999999", "17000000"]))
    elif kind < 0.95:
        head.append("Transfer-Encoding: chunked")
        content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [content[:7], content[7:]] if part) + b"0\r\n\r\n"
    else:
        head += ["Transfer-Encoding: chunked"]
        content = b"zz\r\n" + content
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def send(address, data, chance):
    with socket.create_connection(address, timeout=20) as connection:
        step = chance.choice([len(data)] * 9 + [1 + len(data) // 40])
        try:
            for start in range(0, len(data), step):
                connection.sendall(data[start:start + step])
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def run(number, address):
    chance = random.Random(number)
    data = request(chance)
    try:
        answer = send(address, data, chance)
    except TimeoutError:
        return "HANG", data
    if not answer:
        return "closed", None
    status = int(answer.split(b" ", 2)[1])
    if status >= 500 or not answer.startswith(b"HTTP/1.1"):
        return f"BAD {status}", data + b" -> " + answer[:300]
    if status >= 400:
        content = answer.split(b"\r\n\r\n", 1)[1]
        try:
            error = json.loads(content)["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"]
        except (ValueError, KeyError, AssertionError):
            return f"NO ERROR OBJECT {status}", data[:300] + b" -> " + answer[:300]
    return str(status), None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--requests", type=int, default=24000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    place = urllib.parse.urlparse(arguments.base)
    address = (place.hostname, place.port)
    counts = collections.Counter()
    shown = 0
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for kind, detail in pool.map(lambda n: run(n, address), range(arguments.first, arguments.first + arguments.requests)):
            counts[kind] += 1
            if detail is not None and shown < 10:
                shown += 1
                print(kind, detail[:900])
    print(dict(counts))
    health = send(address, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", random.Random(0))
    print(health.split(b"\r\n", 1)[0].decode())
    if any(kind.isupper() or kind.startswith(("BAD", "NO ")) for kind in counts) or b" 200 " not in health:
        raise SystemExit(1)


main()
