"""Hold one testbed: the one process outside the hosts, which boots, breaks and ends them at its owner's word.

Started by `client.py` as `python -m tests.testbed.keeper FD`, with FD a socket on which it reads requests and writes
answers, one JSON object a line.  It lives in the network namespace of the switch, which has no way out.  It detaches
itself, watches its owner through a pidfd, and when the owner or the socket is gone it ends all hosts, removes the
testbed's directory and ends; when it is itself killed, the kernel kills the hosts' first processes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from tests.testbed import files, linux, state
from tests.testbed.host import HostPlan, become
from tests.testbed.power import Running, close_all_but, end, expect, fork_first_process, stop_all


class Keeper:
    """What one testbed consists of, and the requests that may be made of it (the methods named `do_...`)."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.plans: dict[str, HostPlan] = {}
        self.running: dict[str, Running] = {}

    def do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Claim a place, write the common files, make the switch."""
        base = state.base_directory(request["uid"])
        index, self.root = state.claim(base, (request["owner"], request["owner_start"]))
        names = [f"n{number}" for number in range(1, request["hosts"] + 1)]
        addresses = {name: f"10.77.{index}.{number}" for number, name in enumerate(names, 1)}
        accounts = files.prepare(self.root, addresses, request["users"])
        for number, name in enumerate(names, 1):
            self.plans[name] = HostPlan(
                name=name,
                address=f"{addresses[name]}/24",
                hardware=f"02:4d:48:{index:02x}:{number >> 8:02x}:{number & 255:02x}",
                root=str(self.root),
                sizes=request["sizes"],
                expose=tuple(request["expose"]),
            )
        bridge = "link add {0} type bridge stp_state 0 forward_delay 0\nlink set {0} up\n"
        _ip("link set lo up\n" + bridge.format("br0") + bridge.format("br1"))
        return {
            "index": index,
            "root": str(self.root),
            "addresses": addresses,
            "accounts": {name: asdict(account) for name, account in accounts.items()},
        }

    def do_boot(self, request: dict[str, Any]) -> dict[str, Any]:
        """Boot the named hosts side by side and wait until sshd listens on each."""
        names = request["hosts"]
        pending = {name: self._fork_host(name) for name in names}
        commands = []
        for name in names:
            expect(name, pending[name], "namespaces")
            commands.append(f"link add {_port(name)} type veth peer name eth0 netns {self.running[name].init}")
            commands.append(f"link set {_port(name)} master br0 up")
        for name in names:
            self.running[name].network = os.open(f"/proc/{self.running[name].init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _ip("\n".join(commands) + "\n")
        for _, go in pending.values():
            os.write(go, b"\n")
            os.close(go)
        for name, (tell, _) in pending.items():
            expect(name, (tell, -1), "ready")
            os.close(tell)
        return {"running": {name: [one.init, one.start] for name, one in self.running.items() if one.up}}

    def _fork_host(self, name: str) -> tuple[int, int]:
        self._forget(name)
        tell_end, tell = os.pipe()
        go, go_end = os.pipe()
        log = os.open(f"{self.root}/log/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def be_host() -> NoReturn:
            for number in (1, 2):
                os.dup2(log, number)
            close_all_but({0, 1, 2, tell, go})
            become(self.plans[name], tell, go)

        init = fork_first_process(be_host)
        for descriptor in (tell, go, log):
            os.close(descriptor)
        self.running[name] = Running(init, linux.start_time(init) or "", -1)
        return tell_end, go_end

    def _forget(self, name: str) -> None:
        """End what is left of an earlier life of the host, its network included."""
        one = self.running.pop(name, None)
        if one is not None:
            end(one)
            if one.network >= 0:
                os.close(one.network)
            subprocess.run(["ip", "link", "del", _port(name)], capture_output=True)
        Path(f"{self.root}/frozen-{name}").unlink(missing_ok=True)

    def do_kill(self, request: dict[str, Any]) -> dict[str, Any]:
        """End all processes of a host; its network stack goes on, so that peers see FIN and RST."""
        end(self.running[request["host"]])
        return {}

    def do_crash(self, request: dict[str, Any]) -> dict[str, Any]:
        """Cut a host's power: peers see silence."""
        _ip(f"link set {_port(request['host'])} down\n")
        self._forget(request["host"])
        return {}

    def do_switch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run `ip` or `tc` where the switch is; PORT stands for the port of the host."""
        port = _port(request["host"])
        command = [port if word == "PORT" else word for word in request["argv"]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        return {}

    def do_freeze(self, request: dict[str, Any]) -> dict[str, Any]:
        """Stop every process of a host; its network stack still answers."""
        host = request["host"]
        Path(f"{self.root}/frozen-{host}").touch()
        stop_all(lambda: self._processes(host))
        return {}

    def do_thaw(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let a frozen host go on."""
        Path(f"{self.root}/frozen-{request['host']}").unlink(missing_ok=True)
        for pid in self._processes(request["host"]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return {}

    def do_processes(self, request: dict[str, Any]) -> dict[str, Any]:
        """List a host's processes that carry a text in their command line or environment."""
        wanted = request["text"].encode()
        found = []
        for pid in self._processes(request["host"]):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if wanted in command.replace(b"\0", b" ") or wanted in Path(f"/proc/{pid}/environ").read_bytes():
                    inner = Path(f"/proc/{pid}/status").read_text(errors="replace").partition("\nNSpid:")[2]
                    text = command.replace(b"\0", b" ").decode(errors="replace").strip()
                    found.append([int(inner.partition("\n")[0].split()[-1]), text])
            except (OSError, IndexError):
                continue
        return {"processes": sorted(found)}

    def _processes(self, host: str) -> list[int]:
        one = self.running.get(host)
        return linux.processes_in(one.init) if one is not None and one.up else []

    def end(self) -> None:
        """End all hosts and remove the testbed's directory."""
        for name in list(self.running):
            self._forget(name)
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)


def _port(host: str) -> str:
    return f"port-{host}"


def _ip(commands: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input=commands, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


def _detach(kept: int) -> None:
    """Become a process that has nothing in common with its starter but the socket."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o022)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    close_all_but({0, 1, 2, kept})


def _watch(owner: int, start: str) -> int:
    descriptor = os.pidfd_open(owner)
    if linux.start_time(owner) != start:
        raise ProcessLookupError(f"the owner {owner} has ended")
    return descriptor


def serve(channel: socket.socket) -> None:
    """Answer requests until the owner says `close`, hangs up or dies."""
    keeper = Keeper()
    try:
        stream = channel.makefile("r", encoding="utf-8")
        first = json.loads(stream.readline())
        watch = _watch(first["owner"], first["owner_start"])
        linux.adopt_orphans()
        linux.unshare(linux.NEW_NET)
        request, both = first, (channel.fileno(), watch)
        while request["do"] != "close":
            _answer(channel, getattr(keeper, f"do_{request['do']}"), request)
            # Requests come one at a time, so nothing can lie unseen in the stream's own buffer.
            if watch in select.select(both, [], [])[0]:
                break
            line = stream.readline()
            if not line:
                break
            request = json.loads(line)
    finally:
        keeper.end()


def _answer(
    channel: socket.socket, method: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]
) -> None:
    try:
        answer = method(request)
    except Exception as error:  # whatever it is, the owner is the one to be told
        answer = {"error": f"{type(error).__name__}: {error}"}
    with suppress(BrokenPipeError):
        channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _detach(int(sys.argv[1]))
    for _name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_name, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
