#!/usr/bin/env python3
"""Draws held-out loss and the use of experts of several runs as an SVG.

    python Benchmarks/plot_runs.py --out Docs/Monet.docc/learning.svg VD=runs/vd Llama=runs/dense
"""
import argparse
import json
import os

COLOURS = ["#b3541e", "#2f6f9f", "#5a8f3c", "#8a4fa0"]


def rows(folder: str) -> list[dict]:
    with open(os.path.join(folder, "metrics.jsonl")) as file:
        return [json.loads(line) for line in file]


def panel(title: str, left: float, width: float, height: float, curves: list, low: float, high: float) -> list[str]:
    """One set of axes with labelled curves of (name, colour, [(x, y)], dashed)."""
    top, steps = 40, max(x for _, _, points, _ in curves for x, _ in points)

    def place(x, y):
        return left + width * x / steps, top + height * (1 - (y - low) / (high - low))

    parts = [f'<text x="{left}" y="24" font-weight="600">{title}</text>']
    for tick in range(5):
        y = low + (high - low) * tick / 4
        _, v = place(0, y)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{v:.1f}" y2="{v:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{v + 4:.1f}" text-anchor="end" fill="#666">{y:.2f}</text>')
        u, _ = place(steps * tick / 4, low)
        parts.append(f'<text x="{u:.1f}" y="{top + height + 18}" text-anchor="middle" fill="#666">{steps * tick // 4}</text>')
    for index, (name, colour, points, dashed) in enumerate(curves):
        line = " ".join(f"{u:.1f},{v:.1f}" for u, v in (place(x, min(high, max(low, y))) for x, y in points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{left + width - 6}" y="{top + 16 + 17 * index}" text-anchor="end" fill="{colour}">{name}</text>')
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    losses, selected = [], []
    for colour, run in zip(COLOURS, options.runs):
        name, folder = run.split("=", 1)
        evaluations = [row for row in rows(folder) if "eval_loss" in row and row["step"] > 0]
        losses.append((f"{name} {evaluations[-1]['eval_loss']:.3f}", colour, [(row["step"], row["eval_loss"]) for row in evaluations], False))
        if "eval_selected_per_head" in evaluations[-1]:
            selected.append((f"{name}: selected per head", colour, [(row["step"], row["eval_selected_per_head"]) for row in evaluations], False))
            selected.append((f"{name}: share of experts alive", colour, [(row["step"], row["eval_alive_experts"]) for row in evaluations], True))
    values = [y for _, _, points, _ in losses for _, y in points]
    parts = panel("held-out loss, nats per token", 60, 380, 240, losses, min(values) - 0.1, max(values) + 0.1)
    if selected:
        parts += panel("routers on held-out text", 520, 380, 240, selected, 0, 5)
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    with open(options.out, "w") as file:
        file.write(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 930 320" font-family="system-ui, sans-serif" font-size="13">'
            '<rect width="930" height="320" fill="#fff"/>' + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main()
