"""Write what the hosts of one testbed have in common: keys, accounts, the configuration of ssh, names of hosts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The key exchange is the cheapest of the usual ones: the default costs several times as much on a small machine.
_SSHD = """\
Port 22
ListenAddress 0.0.0.0
HostKey {keys}/host
AuthorizedKeysFile {keys}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
KexAlgorithms curve25519-sha256
StrictModes no
PrintMotd no
PrintLastLog no
MaxStartups 200:30:400
MaxSessions 200
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
"""

_SSH = """\
Host *
  IdentityFile {keys}/%u
  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile {keys}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 10
"""


@dataclass(frozen=True)
class Account:
    """One user of the hosts; numbers as the hosts see them."""

    name: str
    uid: int
    gid: int
    home: str


def prepare(root: Path, addresses: dict[str, str], users: list[str]) -> dict[str, Account]:
    """Fill the directory `root` of a testbed and return its accounts by name.

    Args:
        root: The testbed's own directory, empty as yet.
        addresses: Address of each host, by name.
        users: Ordinary users; those that the machine knows keep their numbers, the others exist on the hosts only.
    """
    for name in ("etc", "keys", "home", "log", "local"):
        (root / name).mkdir(mode=0o755)
    shared = root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    accounts = _write_accounts(root, users)
    _write_keys(root, addresses, accounts)
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, address in addresses.items()]
    _write(root / "etc/hosts", "\n".join(lines) + "\n")
    for name in addresses:
        _write(root / f"etc/hostname-{name}", f"{name}\n")
    _write(root / "etc/ssh_config", _SSH.format(keys=root / "keys"))
    _write(root / "etc/sshd_config", _SSHD.format(keys=root / "keys"))
    return accounts


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _write_accounts(root: Path, users: list[str]) -> dict[str, Account]:
    """Write passwd, shadow and group for the hosts, from the machine's own; homes lie on the shared storage."""
    passwd = [line.split(":") for line in Path("/etc/passwd").read_text(encoding="utf-8").splitlines()]
    passwd = [fields for fields in passwd if len(fields) == 7]
    group = Path("/etc/group").read_text(encoding="utf-8").splitlines()
    known = {fields[0]: fields for fields in passwd}
    taken = {int(fields[2]) for fields in passwd} | {int(line.split(":")[2]) for line in group if line.count(":") == 3}
    free = (number for number in range(2000, 60000) if number not in taken)
    accounts = {}
    for name in ["root", *users]:
        home = root / "home" / name
        if name not in known:
            number = str(next(free))
            known[name] = [name, "x", number, number, "", "", ""]
            passwd.append(known[name])
            group.append(f"{name}:x:{number}:")
        fields = known[name]
        fields[5:] = [str(home), "/bin/bash"]
        accounts[name] = Account(name, int(fields[2]), int(fields[3]), str(home))
        home.mkdir(mode=0o700)
        os.chown(home, accounts[name].uid, accounts[name].gid)
    _write(root / "etc/passwd", "".join(":".join(fields) + "\n" for fields in passwd))
    _write(root / "etc/group", "\n".join(group) + "\n")
    # Without PAM sshd refuses an account whose entry begins with "!", as useradd writes it.
    _write(root / "etc/shadow", "".join(f"{fields[0]}:*:19000:0:99999:7:::\n" for fields in passwd), 0o600)
    return accounts


def _write_keys(root: Path, addresses: dict[str, str], accounts: dict[str, Account]) -> None:
    """Make one key for the hosts and one for the users; each user has a copy, since ssh wants to be its only reader."""
    keys = root / "keys"
    for name in ("host", "login"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f", str(keys / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    _write(keys / "authorized_keys", (keys / "login.pub").read_text(encoding="utf-8"))
    names = ",".join([*addresses.keys(), *addresses.values()])
    _write(keys / "known_hosts", f"{names} {(keys / 'host.pub').read_text(encoding='utf-8')}")
    secret = (keys / "login").read_text(encoding="utf-8")
    for account in accounts.values():
        _write(keys / account.name, secret, 0o600)
        os.chown(keys / account.name, account.uid, account.gid)
