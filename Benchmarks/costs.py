#!/usr/bin/env python3
"""Measures how the time of a token grows with context, experts, heads and batch; writes a table and a plot.

    python Benchmarks/costs.py --folder /tmp/costs --svg Docs/Monet.docc/costs.svg

Random models of 8 layers of width 512 (m 16, k 8, bfloat16) that differ in one number from E 256, H 4.
"""
import argparse
import json
import os
import subprocess

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COLOURS = ["#b3541e", "#2f6f9f"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--monet", default=os.path.join(root, ".build/release/monet"))
    parser.add_argument("--folder", required=True)
    parser.add_argument("--svg")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)

    def model(experts=256, heads=4):
        path = os.path.join(options.folder, f"e{experts}-h{heads}")
        if not os.path.exists(path):
            subprocess.run(
                [options.monet, "init", "--preset", "small-vd", "--vocab-size", "8192", "--set", f"moe_experts={experts}",
                 "--set", f"moe_heads={heads}", "--set", "max_position_embeddings=32768", "--dtype", "bf16",
                 "--calibrate", "--out", path, "--quiet"], check=True)
        return path

    def bench(path, *arguments):
        result = subprocess.run(
            [options.monet, "bench", "--model", path, "--json", "--quiet", *arguments], check=True, capture_output=True,
            text=True)
        row = json.loads(result.stdout)["results"][0]
        return 1000 / row["tokens_per_second"], row.get("active_share", 1)

    def decode(path, context=16, streams=1):
        test = ["--tests", "decode"] if streams == 1 else ["--tests", "batch", "--streams", str(streams)]
        return bench(path, *test, "--context-tokens", str(context), "--new-tokens", "16")

    def prefill(path, tokens=512):
        return bench(path, "--tests", "prefill", "--prompt-tokens", str(tokens))

    panels = []
    contexts = [16, 128, 512, 2048, 8192, 32000]
    panels.append(("context", contexts, [decode(model(), c)[0] for c in contexts],
                   [prefill(model(), max(c, 16))[0] for c in contexts[:-1]] + [None]))
    experts = [64, 128, 256, 512, 1024]
    panels.append(("experts a side, E", experts, [decode(model(experts=e))[0] for e in experts],
                   [prefill(model(experts=e))[0] for e in experts]))
    heads = [1, 2, 4, 8, 16]
    panels.append(("routing heads, H", heads, [decode(model(heads=h))[0] for h in heads],
                   [prefill(model(heads=h))[0] for h in heads]))
    batches = [1, 2, 4, 8, 12, 16, 32, 64]
    panels.append(("texts at once", batches, [decode(model(), streams=b)[0] for b in batches], [None] * len(batches)))
    for name, xs, decoding, prefilling in panels:
        print(f"| {name} | " + " | ".join(str(x) for x in xs) + " |")
        print("|---" * (len(xs) + 1) + "|")
        for label, values in [("decoding, ms a token", decoding), ("prompt, ms a token", prefilling)]:
            if any(value is not None for value in values):
                print(f"| {label} | " + " | ".join("–" if v is None else f"{v:.2f}" for v in values) + " |")
        print()
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(draw(panels))


def draw(panels) -> str:
    import math

    width, height, gap, left, top = 190, 150, 62, 56, 44
    total = left + len(panels) * (width + gap)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {top + height + 60}" '
             'font-family="system-ui, sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for index, (name, xs, decoding, prefilling) in enumerate(panels):
        x0 = left + index * (width + gap)
        values = [v for v in decoding + prefilling if v is not None]
        high = max(values) * 1.1

        def place(x, y):
            share = (math.log(x) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0]))
            return x0 + width * share, top + height * (1 - y / high)

        parts.append(f'<text x="{x0}" y="20" font-weight="600">{name}</text>')
        for tick in range(5):
            y = high * tick / 4
            v = place(xs[0], y)[1]
            parts.append(f'<line x1="{x0}" x2="{x0 + width}" y1="{v:.1f}" y2="{v:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 5}" y="{v + 4:.1f}" text-anchor="end" fill="#666">{y:.1f}</text>')
        last = x0 - 100
        for x in xs:
            u = place(x, 0)[0]
            if u - last < 18:
                continue
            last = u
            label = f"{x // 1024}k" if x >= 2048 and x % 1024 == 0 else ("32k" if x == 32000 else str(x))
            parts.append(f'<text x="{u:.1f}" y="{top + height + 16}" text-anchor="middle" fill="#666">{label}</text>')
        for colour, series in zip(COLOURS, [decoding, prefilling]):
            points = [place(x, y) for x, y in zip(xs, series) if y is not None]
            if points:
                line = " ".join(f"{u:.1f},{v:.1f}" for u, v in points)
                parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
                parts += [f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2.5" fill="{colour}"/>' for u, v in points]
    for index, label in enumerate(["decoding, ms a token", "prompt, ms a token"]):
        u = left + index * 160
        v = top + height + 44
        parts.append(f'<circle cx="{u}" cy="{v - 4}" r="4" fill="{COLOURS[index]}"/><text x="{u + 9}" y="{v}">{label}</text>')
    return "\n".join(parts) + "</svg>\n"


if __name__ == "__main__":
    main()
