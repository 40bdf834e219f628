"""Jobs of PBS, LSF and Flux beyond what was recorded: files that are elsewhere, answers that are odd, and damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts import FluxSource, LsfSource, PbsSource
from pytest_multihost_env.hosts import flux as flux_module
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.model import Allocation
from tests.recorded import shim


def pairs(allocation: Allocation | None) -> list[tuple[str, int]]:
    assert allocation is not None
    return [(host.name, host.slots) for host in merged(allocation).hosts]


class TestPbs:
    def test_lines_of_the_node_file_are_slots_and_each_is_named(self, special: Path) -> None:
        path = special / "nodes"
        path.write_text("n1\nn1\n\nn2.example.org\nn1\n")
        found = PbsSource().find({"PBS_NODEFILE": str(path)})
        assert pairs(found) == [("n1", 3), ("n2.example.org", 1)]
        assert found is not None
        assert [host.where for host in merged(found).hosts] == [f"{path}:1-2,5", f"{path}:4"]

    @pytest.mark.parametrize("content", [None, "", "\n\n", "n1\nn1 n2\n", "n1\n-oProxyCommand=x\n"])
    def test_a_node_file_that_is_none_is_refused(self, content: str | None, special: Path) -> None:
        path = special / "nodes"
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageProblem) as caught:
            PbsSource().find({"PBS_NODEFILE": str(path), "PBS_JOBID": "7.server"})
        assert str(path) in (caught.value.where or "")
        assert "--multihost-hosts" in (caught.value.hint or "")

    @pytest.mark.parametrize("how", ["PBS_HOME", "PBS_CONF_FILE"])
    def test_the_job_s_file_is_found_where_the_daemon_keeps_it(self, how: str, special: Path) -> None:
        (special / "aux").mkdir()
        (special / "aux" / "123[4].server").write_text("n1\nn2\n")
        (special / "pbs.conf").write_text(f"# of the site\nPBS_SERVER=server\nPBS_HOME={special}\n")
        values = {"PBS_HOME": str(special), "PBS_CONF_FILE": str(special / "pbs.conf")}
        assert pairs(PbsSource().find({"PBS_JOBID": "123[4].server", how: values[how]})) == [("n1", 1), ("n2", 1)]

    @pytest.mark.parametrize("job", ["9.server", "../../etc/hostname", "/etc/hostname"])
    def test_a_job_without_a_file_is_refused_and_every_place_is_named(self, job: str, special: Path) -> None:
        with pytest.raises(UsageProblem, match="its node file is missing") as caught:
            PbsSource().find({"PBS_JOBID": job, "PBS_HOME": str(special)})
        if "/" not in job:
            for place in (str(special), "/var/spool/pbs", "/var/spool/torque"):
                assert f"{place}/aux/{job}" in (caught.value.where or "")

    def test_a_dangling_file_is_refused(self, special: Path) -> None:
        (special / "aux").mkdir()
        (special / "aux" / "9.server").symlink_to("gone")
        with pytest.raises(UsageProblem, match="cannot be read"):
            PbsSource().find({"PBS_JOBID": "9.server", "PBS_HOME": str(special)})

    def test_slurm_s_qsub_sets_the_job_s_number_and_slurm_answers(self, special: Path) -> None:
        environ = {"PBS_JOBID": "7", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "PBS_HOME": str(special)}
        assert PbsSource().find(environ) is None


class TestLsf:
    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({"LSB_MCPU_HOSTS": "batch2 1 h41n08 42 h41n03 42"}, [("batch2", 1), ("h41n08", 42), ("h41n03", 42)]),
            ({"LSB_MCPU_HOSTS": " n1  2\tn2 1 "}, [("n1", 2), ("n2", 1)]),
            ({"LSB_HOSTS": "n1 n1 n2"}, [("n1", 2), ("n2", 1)]),
            ({"LSB_MCPU_HOSTS": "n1 2", "LSB_HOSTS": "n1 n1"}, [("n1", 2)]),
        ],
    )
    def test_variables(self, environ: dict[str, str], expected: list[tuple[str, int]]) -> None:
        assert pairs(LsfSource().find(environ)) == expected

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("n1", "'n1' has no slots"),
            ("n1 2 n2", "'n2' has no slots"),
            ("n1 two", "'two' is not a number of slots"),
            ("n1 -1", "'-1' is not a number of slots"),
            ("2 n1", "'n1' is not a number of slots"),
            ("n1 1234567", "is not a number of slots"),
            ("n1 ²", "is not a number of slots"),
        ],
    )
    def test_pairs_that_are_none_are_refused(self, text: str, words: str) -> None:
        with pytest.raises(UsageProblem, match=words) as caught:
            LsfSource().find({"LSB_MCPU_HOSTS": text, "LSB_JOBID": "7"})
        assert caught.value.where == "LSB_MCPU_HOSTS"

    def test_a_host_without_slots_is_refused(self) -> None:
        with pytest.raises(UsageProblem, match="n1 has 0 slots"):
            pairs(LsfSource().find({"LSB_MCPU_HOSTS": "n1 0"}))

    def test_a_file_that_is_gone_is_refused_though_there_are_variables(self, special: Path) -> None:
        with pytest.raises(UsageProblem, match="No such file"):
            LsfSource().find({"LSB_DJOB_HOSTFILE": str(special / "gone"), "LSB_MCPU_HOSTS": "n1 2"})


def resources(*ranks: tuple[str, str], nodelist: object) -> str:
    lite = [{"rank": rank, "children": {"core": core}} for rank, core in ranks]
    return json.dumps({"version": 1, "execution": {"R_lite": lite, "nodelist": nodelist}})


class TestFlux:
    def find(self, place: Path, hosts: str, answer: str = "", **variables: str) -> list[tuple[str, int]]:
        directory = shim(place, {"flux hostlist local": hosts, "flux resource R": answer})
        environ = {"FLUX_URI": "local:///run/flux/local", "PATH": str(directory), **variables}
        return pairs(FluxSource().find(environ))

    @pytest.mark.parametrize(
        ("hosts", "answer", "expected"),
        [
            ("n[1-3]", resources(("0-2", "0-3"), nodelist=["n[1-3]"]), [("n1", 4), ("n2", 4), ("n3", 4)]),
            (
                "n[1-3]",
                resources(("0,2", "0-1,7"), ("1", "0"), nodelist=["n[1,3]", "n2"]),
                [("n1", 3), ("n2", 1), ("n3", 3)],
            ),
            ("n[1-3]", resources(("[0-1]", "0"), nodelist=["n1", "n3"]), [("n1", 1), ("n3", 1)]),
            ("n[1,1]", resources(("0-1", "0-1"), nodelist=["n[1,1]"]), [("n1", 4)]),
        ],
    )
    def test_cores_of_an_instance(
        self, hosts: str, answer: str, expected: list[tuple[str, int]], special: Path
    ) -> None:
        assert self.find(special, hosts, answer) == expected

    @pytest.mark.parametrize(
        ("hosts", "size", "expected"),
        [
            ("n[1-3]", "6", [("n1", 2), ("n2", 2), ("n3", 2)]),
            ("n[1-3]", "2", [("n1", 1), ("n2", 1)]),
            ("n[1,1]", "3", [("n1", 3)]),
        ],
    )
    def test_tasks_of_a_job(self, hosts: str, size: str, expected: list[tuple[str, int]], special: Path) -> None:
        assert self.find(special, hosts, FLUX_JOB_ID="f2", FLUX_JOB_SIZE=size) == expected

    @pytest.mark.parametrize(
        "answer",
        [
            "",
            "no JSON",
            "[]",
            "{}",
            '{"execution": {"R_lite": [{"rank": "0", "children": {}}], "nodelist": ["n1"]}}',
            resources(("0", "x"), nodelist=["n1"]),
            resources(("0-1", "0-3"), nodelist=["n1"]),
            resources(("0", "0-3"), nodelist=["n["]),
            resources(("0", "0-3"), nodelist=None),
            resources(("0", "0-3"), nodelist=[1]),
        ],
    )
    def test_an_answer_that_is_not_understood_is_refused(self, answer: str, special: Path) -> None:
        with pytest.raises(UsageProblem) as caught:
            self.find(special, "n1", answer)
        assert caught.value.where == "flux resource R"

    @pytest.mark.parametrize("size", ["", "many", "-1", "²", "123456789"])
    def test_a_size_that_is_none_is_refused(self, size: str, special: Path) -> None:
        with pytest.raises(UsageProblem, match="is not a number of tasks"):
            self.find(special, "n1", FLUX_JOB_ID="f2", FLUX_JOB_SIZE=size)

    def test_a_job_of_no_tasks_is_refused(self, special: Path) -> None:
        with pytest.raises(UsageProblem, match="Flux names no host"):
            self.find(special, "n1", FLUX_JOB_ID="f2", FLUX_JOB_SIZE="0")

    def test_a_flux_that_is_not_installed_is_refused(self, special: Path) -> None:
        with pytest.raises(UsageProblem, match="flux cannot be started: No such file"):
            FluxSource().find({"FLUX_URI": "local:///run/flux/local", "PATH": str(special)})

    def test_a_flux_that_fails_is_refused_though_it_names_a_host(self, special: Path) -> None:
        directory = shim(special, {"flux never": ""}, "echo n1; exit 3")
        with pytest.raises(UsageProblem, match="flux ended with code 3"):
            FluxSource().find({"FLUX_JOB_ID": "f2", "PATH": str(directory)})

    def test_a_flux_that_does_not_answer_is_refused(self, special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flux_module, "LIMIT", 0.2)
        directory = shim(special, {"flux never": ""}, "exec /bin/sleep 60")
        with pytest.raises(UsageProblem, match=r"no answer within 0\.2 s"):
            FluxSource().find({"FLUX_URI": "local:///run/flux/local", "PATH": str(directory)})
