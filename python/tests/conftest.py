"""Files that the real command makes, from a small model with random weights."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = {
    "sea": "The sea is wide and the ships sail on the sea. Fish live in the sea, and the waves are high.",
    "law": "The court heard the case. The judge read the law, and the witness answered the court.",
}


@pytest.fixture(scope="session")
def monet() -> str:
    built = [os.environ.get("MONET"), shutil.which("monet"), ROOT / ".build/release/monet", ROOT / ".build/debug/monet"]
    for path in built:
        if path and pathlib.Path(path).exists():
            return str(path)
    pytest.fail("no monet command: run make build, or set MONET")


@pytest.fixture(scope="session")
def made(monet: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("monet")

    def run(*arguments: str) -> str:
        done = subprocess.run([monet, *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    corpus = []
    for label, text in TEXTS.items():
        (folder / f"{label}.txt").write_text((text + "\n") * 3)
        corpus += ["--corpus", f"{label}={label}.txt"]
    tokenizer = str(ROOT / "Tests/Fixtures/text/llama.model")
    run("init", "--preset", "nano-vd", "--tokenizer", tokenizer, "--out", "model", "--calibrate")
    run("index", "build", "--model", "model", *corpus, "--out", "index.sqlite")
    hooks = "blocks.1.hook_resid_post,blocks.0.attn.hook_z"
    for name, extra in {"plain": [], "npz": ["--format", "npz"], "half": ["--hook-dtype", "bf16"]}.items():
        run("activations", "--model", "model", *corpus, "--units", "all", "--hooks", hooks, "--out", name, *extra)
    (folder / "trace.json").write_text(run("trace", "--model", "model", TEXTS["sea"], "--json", "--top", "1000"))
    return folder


@pytest.fixture(scope="session")
def server(monet: str, made: pathlib.Path):
    process = subprocess.Popen(
        [monet, "serve", "--model", "model", "--index", "index.sqlite", "--port", "0"], cwd=made,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = None
    for line in process.stdout:
        found = re.search(r"http://[0-9.]+:[0-9]+", line)
        address = found.group() if found else address
        if "ready" in line:
            break
    yield address
    process.terminate()
    process.wait(30)
