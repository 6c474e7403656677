"""Debian packages, downloaded and unpacked without root."""
import glob
import os
import subprocess
import sys


class PackageError(Exception):
    """A package could not be had."""


def fetch(names: list[str], cache: str) -> dict[str, str]:
    """Downloads and unpacks packages; returns each one's folder."""
    cache = os.path.abspath(cache)
    os.makedirs(cache, exist_ok=True)
    folders = {}
    for number, name in enumerate(names, 1):
        folder = os.path.join(cache, name)
        folders[name] = folder
        if os.path.isdir(folder):
            continue
        print(f"package {number}/{len(names)}: {name}", file=sys.stderr)
        archive = download(name, cache)
        partial = folder + ".partial"
        run(["dpkg-deb", "-x", archive, partial], f"{name}: dpkg-deb could not unpack {archive}")
        os.rename(partial, folder)
        os.remove(archive)
    return folders


def download(name: str, cache: str) -> str:
    """Puts a package's .deb file into the cache folder."""
    pattern = os.path.join(cache, name + "_*.deb")
    for old in glob.glob(pattern):
        os.remove(old)
    message = f"{name}: apt-get could not download it. As root, run: apt-get update"
    run(["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", name], message, cwd=cache)
    found = glob.glob(pattern)
    if not found:
        raise PackageError(message)
    return found[0]


def run(command: list[str], message: str, cwd: str | None = None) -> None:
    """Runs a command that must succeed."""
    try:
        result = subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise PackageError(f"{command[0]} was not found; corpora are made from Debian packages") from None
    if result.returncode != 0:
        raise PackageError(f"{message}\n{result.stderr.strip()}")
