"""A real ComfyUI server on the CPU with this pack installed, in a folder of its own. Standard library only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from ..hosts.checkouts import PACK, Checkout

NAME = "comfyui-bwcache"  # the folder that a git clone makes
NOT_INSTALLED = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks", "devtools", "out", "node.zip")
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
START_SECONDS = 180
RUN_SECONDS = 180


class Refused(RuntimeError):
    """The server did not accept a prompt. The message holds its reasons."""


class Server:
    """Started by `running`. base: its folder."""

    def __init__(self, url: str, base: Path, process: subprocess.Popen) -> None:
        self.url, self.base, self.process = url, base, process

    @property
    def log(self) -> str:
        return (self.base / "log.txt").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, data: dict):
        request = urllib.request.Request(self.url + path, json.dumps(data).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error
        return json.loads(body) if body else None

    def queue(self, prompt: dict) -> str:
        """Id of a prompt in API format. Raises Refused if a node, input or value is not legal.

        The server itself runs what is left of a prompt as long as one output can be made.
        """
        answer = self.post("/prompt", {"prompt": prompt})
        if answer.get("node_errors"):
            raise Refused(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def run(self, prompt: dict) -> dict:
        """Outputs by node id, once the prompt has run. Raises RuntimeError with the server's message if it failed."""
        prompt_id = self.queue(prompt)
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            history = self.get(f"/history/{prompt_id}").get(prompt_id)
            if history and history["status"]["completed"]:
                return history["outputs"]
            if history and history["status"]["status_str"] == "error":
                raise RuntimeError(json.dumps(history["status"]["messages"][-1]))
            time.sleep(0.1)
        raise RuntimeError(f"The prompt did not finish in {RUN_SECONDS} s. {self.log[-2000:]}")


def install(base: Path, without: Iterable[str] = ()) -> Path:
    """A copy of the pack as a git clone has it, less the paths in `without`."""
    pack = base / "custom_nodes" / NAME
    shutil.copytree(PACK, pack, ignore=NOT_INSTALLED)
    for path in without:
        shutil.rmtree(pack / path) if (pack / path).is_dir() else (pack / path).unlink()
    return pack


def make_base(base: Path) -> None:
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)


def pretend_raylight(base: Path) -> None:
    """A folder that looks like Raylight's, with no node in it: its own need CUDA. Ours for it registers then."""
    folder = base / "custom_nodes" / "raylight"
    (folder / "src" / "raylight" / "distributed_worker").mkdir(parents=True)
    (folder / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n", encoding="utf-8")


@contextmanager
def running(checkout: Checkout, base: Path, *flags: str):
    """A Server of `checkout` over the folder `base`, started with these flags too, stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        checkout.python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", base,
        "--disable-auto-launch", "--disable-api-nodes", "--database-url", f"sqlite:///{base / 'comfyui.db'}", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with open(base / "log.txt", "wb") as log:
        process = subprocess.Popen(command, cwd=checkout.path, stdout=log, stderr=subprocess.STDOUT, env=environment)
        server = Server(f"http://127.0.0.1:{port}", base, process)
        try:
            wait_until_ready(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(server: Server) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with status {server.process.returncode}. {server.log[-2000:]}")
        try:
            return server.get("/system_stats")
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"ComfyUI did not answer in {START_SECONDS} s. {server.log[-2000:]}")
