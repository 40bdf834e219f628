"""Be one host: the first process of a fresh set of namespaces, which mounts, names, starts sshd and then reaps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.testbed import linux

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRIVATE = ("/tmp", "/run", "/dev/shm")
_SSHD_LIMIT = 10.0


@dataclass(frozen=True)
class HostPlan:
    """All that one host is made from.

    Attributes:
        name: Its host name.
        address: Its IPv4 address with the length of the prefix.
        hardware: Its hardware address, the same after each boot, so that its neighbours' tables stay right.
        root: The testbed's directory.
        sizes: Limits of the node-local directory and of /tmp, /run and /dev/shm, as tmpfs takes them.
        expose: Directories below a private directory that are to be seen all the same.
    """

    name: str
    address: str
    hardware: str
    root: str
    sizes: dict[str, str]
    expose: tuple[str, ...]


def become(plan: HostPlan, tell: int, go: int) -> NoReturn:
    """Turn this process, the first of a new pid namespace, into the host; never returns.

    Args:
        plan: The host.
        tell: Descriptor to write to: one line when the namespaces exist, one when sshd listens, or what went wrong.
        go: Descriptor to read one byte from before going on: until then the network is plugged in.
    """
    try:
        linux.unshare(linux.NEW_MOUNT | linux.NEW_UTS | linux.NEW_IPC | linux.NEW_NET)
        os.write(tell, b"namespaces\n")
        if not os.read(go, 1):
            os._exit(1)
        # By now the keeper has adopted us; if it ends before this line, nobody hears our "ready" and we end too.
        linux.die_with_parent(signal.SIGKILL)
        os.umask(0o022)
        socket.sethostname(plan.name)
        _mount_all(plan)
        _configure_network(plan)
        _start_sshd(plan)
        os.write(tell, b"ready\n")
    except (OSError, subprocess.SubprocessError) as error:
        os.write(tell, f"{plan.name}: {error}\n".encode())
        os._exit(1)
    os.close(tell)
    os.close(go)
    _reap_for_ever()


def _mount_all(plan: HostPlan) -> None:
    root = Path(plan.root)
    linux.mount("none", "/", None, linux.RECURSIVE | linux.PRIVATE)
    exposed = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in plan.expose}
    cgroups = os.open("/sys/fs/cgroup", os.O_PATH) if Path("/sys/fs/cgroup").is_dir() else None
    linux.mount("proc", "/proc", "proc")
    # sysfs shows the network devices of the namespace that mounted it.
    linux.mount("sysfs", "/sys", "sysfs")
    if cgroups is not None:
        linux.mount(f"/proc/self/fd/{cgroups}", "/sys/fs/cgroup", None, linux.BIND | linux.RECURSIVE)
        os.close(cgroups)
    for path in _PRIVATE:
        mode = "755" if path == "/run" else "1777"
        _tmpfs(path, f"size={plan.sizes['tmp']},mode={mode}")
    _tmpfs(str(root / "local"), f"size={plan.sizes['local']},mode=1777")
    for path, descriptor in exposed.items():
        Path(path).mkdir(parents=True)
        linux.mount(f"/proc/self/fd/{descriptor}", path, None, linux.BIND | linux.RECURSIVE)
        os.close(descriptor)
    for path in ("/run/sshd", "/run/user"):
        Path(path).mkdir()
    Path("/run/lock").mkdir()
    Path("/run/lock").chmod(0o1777)
    _bind_files(plan, root / "etc")


def _tmpfs(target: str, options: str) -> None:
    linux.mount("tmpfs", target, "tmpfs", linux.NO_SUID | linux.NO_DEV, options)


def _bind_files(plan: HostPlan, etc: Path) -> None:
    Path("/run/machine-id").write_text(uuid.uuid5(uuid.NAMESPACE_DNS, f"{plan.root}/{plan.name}").hex + "\n")
    Path("/run/boot-id").write_text(f"{uuid.uuid4()}\n")
    files = {
        "/etc/hosts": etc / "hosts",
        "/etc/hostname": etc / f"hostname-{plan.name}",
        "/etc/passwd": etc / "passwd",
        "/etc/group": etc / "group",
        "/etc/shadow": etc / "shadow",
        "/etc/ssh/ssh_config": etc / "ssh_config",
        "/etc/machine-id": Path("/run/machine-id"),
        "/proc/sys/kernel/random/boot_id": Path("/run/boot-id"),
    }
    for target, source in files.items():
        if Path(target).exists():
            linux.mount(str(source), target, None, linux.BIND)


def _configure_network(plan: HostPlan) -> None:
    commands = f"link set lo up\naddr add {plan.address} dev eth0\nlink set eth0 address {plan.hardware} up\n"
    done = subprocess.run(["ip", "-batch", "-"], input=commands, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


def _start_sshd(plan: HostPlan) -> None:
    log = Path(plan.root) / f"log/sshd-{plan.name}"
    command = ["/usr/sbin/sshd", "-D", "-f", f"{plan.root}/etc/sshd_config", "-E", str(log)]
    sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={"PATH": CLEAN_PATH}, cwd="/")
    limit = time.monotonic() + _SSHD_LIMIT
    # It writes the file only when it listens already.
    while not Path("/run/sshd.pid").exists():
        if sshd.poll() is not None or time.monotonic() > limit:
            raise OSError(f"sshd did not start: {log.read_text(errors='replace').strip() or sshd.returncode}")
        time.sleep(0.002)
    sshd.returncode = 0  # From here on the loop below reaps; Popen must not complain about a child still running.


def _reap_for_ever() -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait({signal.SIGCHLD})
