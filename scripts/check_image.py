"""Run the steps of docker/Dockerfile without Docker, and use what comes of them as a container would be used.

`python scripts/check_image.py [DOCKERFILE]`. A stage sees what it copied, nothing else of this checkout. The last one
is started as its ENTRYPOINT, with the variables of its ENV, in a tree that cannot be written but for its volume. It has
to become healthy by its HEALTHCHECK, answer a question, and end when it is told to. The base is this machine's Python.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PLACES = "opt", "src", "data"  # the folders of the image that the steps name
KEPT = ("PIP_", "SSL_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "LANG")
DEADLINE = float(os.environ.get("DOCSTRAL_IMAGE_DEADLINE", "120"))  # seconds to become healthy, and for an answer
QUESTION = "How do I stream a chat completion?"


@dataclass(frozen=True)
class Step:
    "One instruction of a Dockerfile."

    name: str  # in capitals
    flags: dict[str, str]  # without their dashes
    rest: str

    def words(self) -> list[str]:
        "What follows: the JSON form, or words as a shell splits them."
        return list(json.loads(self.rest)) if self.rest.startswith("[") else shlex.split(self.rest)


def read_steps(text: str) -> Iterator[Step]:
    "The instructions of a Dockerfile in their order."
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        flags = {}
        while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        yield Step(name.upper(), flags, rest.strip())


@dataclass
class Image:
    "A tree on this machine that the steps of a Dockerfile build, one stage after the other, always at the same place."

    work: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    stage: str = ""
    last: dict[str, Step] = field(default_factory=dict)  # USER, VOLUME, HEALTHCHECK, ENTRYPOINT, CMD of this stage

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    def place(self, path: str) -> Path:
        "Where a path of the image lies here."
        return self.tree / str(PurePosixPath(self.folder) / path).lstrip("/")

    def here(self, text: str) -> str:
        "A command or a value with the image's folders replaced by where they lie here."
        return re.sub(rf"(?<![\w./-])/(?=({'|'.join(PLACES)})\b)", f"{self.tree}/", text)

    def run(self, step: Step) -> None:
        "Take one step."
        print(f"  {step.name} {step.rest[:100]}", flush=True)
        match step.name:
            case "FROM":
                self.begin(step)
            case "WORKDIR":
                self.folder = step.rest
                self.place("").mkdir(parents=True, exist_ok=True)
            case "ENV":
                for word in shlex.split(step.rest):
                    name, _, value = word.partition("=")
                    before = self.environment.get(name, os.defpath if name == "PATH" else "")
                    self.environment[name] = self.here(value).replace(f"${name}", before)
            case "COPY":
                self.copy(step)
            case "RUN":
                command = ["sh", "-c", self.here(step.rest)]
                subprocess.run(command, cwd=self.place(""), env=self.building(), check=True)
            case "USER" | "VOLUME" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                self.last[step.name] = step
            case "LABEL" | "EXPOSE":
                pass
            case _:
                sys.exit(f"This script does not know {step.name}: teach it, or leave the step out.")

    def begin(self, step: Step) -> None:
        "Put the stage so far aside and begin an empty one."
        if self.tree.exists():
            self.tree.rename(self.work / f"stage-{self.stage}")
        self.tree.mkdir()
        words = step.rest.split()
        self.environment, self.folder, self.last = {}, "/", {}
        self.stage = words[2] if len(words) == 3 else ""

    def copy(self, step: Step) -> None:
        "Copy from the checkout, or from an earlier stage."
        *sources, target = step.words()
        origin = self.work / f"stage-{step.flags['from']}" if "from" in step.flags else ROOT
        for source in sources:
            path, goal = origin / source.lstrip("/"), self.place(target)
            if path.is_dir():
                hidden = shutil.ignore_patterns("__pycache__") if origin == ROOT else None
                shutil.copytree(path, goal, symlinks=True, ignore=hidden, dirs_exist_ok=True)
            else:
                goal = goal / path.name if target.endswith("/") else goal
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, goal)

    def building(self) -> dict[str, str]:
        "The variables of a RUN step: those of ENV, this machine's for pip, and its Python as `python`."
        tools = self.work / "tools"
        tools.mkdir(exist_ok=True)
        python = tools / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        path = f"{tools}:{os.defpath}"
        return {"HOME": str(Path.home())} | kept | self.environment | {"PATH": self.environment.get("PATH", path)}


def free_port() -> int:
    "A port on 127.0.0.1 that nothing listens on."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def files_outside(tree: Path, volume: Path) -> set[Path]:
    "Every file of the tree that is not in the volume."
    return {path for path in tree.rglob("*") if not path.is_relative_to(volume)}


def powerless() -> list[str]:
    "What to put before a command so that it cannot write where permissions forbid it: root is asked to obey, too."
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown", "--inh-caps=-all"]


def try_out(image: Image) -> None:
    "Use the last stage as a container: read-only but for its volume."
    volume = image.place(image.last["VOLUME"].words()[0])
    if image.last["USER"].rest.split(":")[0] in ("root", "0"):
        sys.exit("The image runs as root.")
    for path in [image.tree, *files_outside(image.tree, volume)]:
        if not path.is_symlink() and not path.is_relative_to(volume):
            path.chmod(path.stat().st_mode & ~0o222)
    before, index = files_outside(image.tree, volume), sorted((volume / "index").rglob("*"))
    scratch = image.work / "tmp"
    scratch.mkdir()
    # What `docker run` would be told: a port of this machine instead of the one in the image, and a place for /tmp
    given = {"DOCSTRAL_HOST": "127.0.0.1", "DOCSTRAL_PORT": str(free_port()), "TMPDIR": str(scratch)}
    environment = image.environment | given
    command = [*powerless(), *image.last["ENTRYPOINT"].words(), *image.last["CMD"].words()]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=image.place(""), env=environment) as container:
        try:
            while not healthy(image, environment):
                if container.poll() is not None or time.monotonic() - began > DEADLINE:
                    sys.exit("The container did not become healthy.")
                time.sleep(0.2)
            print(f"  Healthy after {time.monotonic() - began:.1f} s.", flush=True)
            ask(f"http://127.0.0.1:{environment['DOCSTRAL_PORT']}")
            container.send_signal(signal.SIGTERM)
            container.wait(timeout=30)
        finally:
            container.kill()
    if container.returncode not in (0, 128 + signal.SIGTERM):  # the second is what a shell says of an orderly end
        sys.exit(f"The container ended with {container.returncode}.")
    if sorted((volume / "index").rglob("*")) != index:
        sys.exit("The index was made again: the one in the image was of no use.")
    if written := files_outside(image.tree, volume) - before:
        sys.exit(f"Written outside the volume: {', '.join(map(str, sorted(written)))}")


def healthy(image: Image, environment: dict[str, str]) -> bool:
    "What the image's own health check says."
    command = image.last["HEALTHCHECK"].rest.removeprefix("CMD ")
    return not subprocess.run(json.loads(command), env=environment, stderr=subprocess.DEVNULL).returncode


def ask(address: str) -> None:
    "One question over HTTP; the answer has to come with citations."
    body = json.dumps({"message": QUESTION}).encode()
    request = urllib.request.Request(f"{address}/chat", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=DEADLINE) as reply:
        text = reply.read().decode()
    with opener.open(f"{address}/", timeout=DEADLINE) as page:
        shown = page.read().decode()
    if '"outcome":"cited"' not in text or "DocStral" not in shown:
        sys.exit(f"It did not answer as it should:\n{text[-2000:]}")
    print("  Answered with citations, and showed its page.", flush=True)


def main() -> None:
    "Build, then try out; the first thing that is wrong ends it."
    dockerfile = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docker" / "Dockerfile"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="docstral-image-") as folder:
        image = Image(Path(folder).resolve())
        for step in read_steps(dockerfile.read_text(encoding="utf8")):
            image.run(step)
        try:
            try_out(image)
        finally:
            for path in [image.tree, *image.tree.rglob("*")]:
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)  # so that it can be removed
    print(f"The image's steps work ({time.monotonic() - began:.0f} s).")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"A step failed with {error.returncode}: {error.cmd[-1]}")
