"""Sites: what slips through here ends in a job script, or in a queue for three days."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from stormsweep.cluster.jobscript import Order, job_script, setup_mistake
from stormsweep.config.sites import Site, SitesFile, load_sites
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import StudyFileError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("walltime = 03:00:00", 'walltime: given 03:00:00; must be in quotes: "03:00:00"'),
        ("walltime = 180", 'walltime: given 180; must be a text in quotes, such as "04:00:00"'),
        ('walltime = "04:00"', "Slurm reads this as minutes and seconds; must be HH:MM:SS"),
        ('walltime = "0"', "walltime: given '0'; must be HH:MM:SS"),
        ('walltime = "25-24:00:00"', "must be HH:MM:SS or D-HH:MM:SS"),
        ('walltime = "UNLIMITED"', "must be HH:MM:SS or D-HH:MM:SS"),
        ('account = "a b"', "account: given 'a b'; must be letters, digits"),
        ('account = "--wrap=x"', "account: given '--wrap=x'; must be letters, digits"),
        ('account = "a;rm -rf ~"', "account: given 'a;rm -rf ~'; must be letters, digits"),
        ('account = "größe"', "account: given 'größe'; must be letters, digits"),
        ('account = ""', "account: given ''; must be letters, digits"),
        ('partition = "a\\n#SBATCH -x"', "partition: "),
        ('qos = "$(id)"', "qos: "),
        ('gres = "gpu:4 --exclusive"', "gres: "),
        ('constraint = "a`id`"', "constraint: "),
        ('modules = ["a", "b; id"]', "modules.1: given 'b; id'; must be letters, digits"),
        ('setup = ["export A=1\\nid"]', "setup.0: "),
        ('scratch = "tmp"', "scratch: given 'tmp'; must be a whole path"),
        ("memory_gb = 0", 'memory_gb: given 0; must be a number of GiB above 0, or "all"'),
        ("memory_gb = nan", "memory_gb: given nan; must be"),
        ("memory_gb = true", "memory_gb: given True; must be"),
        ("nodes = 0", "nodes: given 0; must be"),
        ("cores_per_node = 4\nworkers_per_node = 3\nthreads_per_worker = 2", "3 x 2 = 6; must be"),
        ("copy_data = true", "copy_data: given true without scratch"),
        ('partion = "batch"', "did you mean 'partition'?"),
        ('constraint = "gpu_type=a100"', "constraint: given 'gpu_type=a100'; Slurm knows no '='"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path: Path, line: str, said: str) -> None:
    one_line_with_file_and_key(tmp_path, "slurm", line, said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('qos = "normal"', "qos: given 'normal'; PBS has none"),
        ('constraint = "hpcf2018"', "constraint: given 'hpcf2018'; to PBS it must be resources"),
        ('constraint = "a=1&b"', "constraint: given 'a=1&b'; to PBS"),
        ('constraint = "a=1:ncpus=9"', "constraint: given 'a=1:ncpus=9'; to PBS"),
        ('gres = "gpu:v100:4"', "gres: given 'gpu:v100:4'; to PBS it must be names and numbers"),
        ('gres = "gpu:4,"', "gres: given 'gpu:4,'; to PBS"),
        ('memory_gb = "all"', 'memory_gb: given "all"; PBS gives all only with exclusive'),
        ('account = "a;id"', "account: given 'a;id'; must be letters, digits"),
        ('partition = "a\\n#PBS -I"', "partition: "),
    ],
)
def test_what_means_nothing_to_pbs_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    one_line_with_file_and_key(tmp_path, "pbs", line, said)


def test_what_ncar_asks_for_is_taken() -> None:
    Site(scheduler="pbs", gres="gpu:4,mps:1", constraint="gpu_type=a100_80gb&cpu_type=milan")
    Site(scheduler="pbs", partition="casper@casper-pbs", memory_gb="all", exclusive=True)


def test_the_sites_of_the_documentation_are_taken() -> None:
    text = (ROOT / "docs" / "how-to" / "sites.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        for site in SitesFile.model_validate(tomllib.loads(block)).site.values():
            assert setup_mistake(site) is None
            job_script(site, Order("try", ["a"], "/o"))


def one_line_with_file_and_key(tmp_path: Path, scheduler: str, line: str, said: str) -> None:
    file = tmp_path / "sites.toml"
    file.write_text(f'[site.mine]\nscheduler = "{scheduler}"\n{line}\n', encoding="utf-8")
    with pytest.raises(StudyFileError) as caught:
        load_sites(tmp_path / "study.toml")
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "site.mine" in message
    assert said in message
    assert "\n" not in message


def test_a_name_that_is_an_option_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text('[site."-x"]\nscheduler = "slurm"\n', encoding="utf-8")
    with pytest.raises(StudyFileError, match="begin with a letter or digit"):
        load_sites(tmp_path / "study.toml")


def test_walltimes_mean_what_slurm_says_they_mean() -> None:
    times = {"30": 1800, "3:00:00": 10800, "2-12": 216000, "1-00:30": 88200, "1-0:0:0": None}
    for text, seconds in times.items():
        if seconds is None:
            with pytest.raises(ValueError, match="must be"):
                walltime_seconds(text)
        else:
            assert walltime_seconds(text) == seconds


def test_the_sites_of_2019_ship_with_what_their_scripts_set() -> None:
    sites = load_sites(ROOT / "studies" / "taki-2019.toml")
    old, new, gpu = (sites[f"taki-{kind}"] for kind in ("2013", "2018", "gpu"))
    assert (old.partition, old.qos, old.constraint, old.nodes) == ("batch", "normal", "hpcf2013", 6)
    assert (new.partition, new.qos, new.account) == ("high_mem", "normal+", "pi_gobbert")
    assert old.exclusive
    assert new.exclusive
    assert {site.walltime for site in (old, new, gpu)} == {"03:00:00"}
    assert (gpu.gres, gpu.workers_per_node, gpu.memory_gb) == ("gpu:4", 4, "all")
    assert (old.cores, new.cores, gpu.cores) == (16, 36, 36)


def test_what_clusters_really_ask_for_is_taken() -> None:
    site = Site(
        scheduler="slurm",
        account="uni-bonn_4711@hpc",
        constraint="[rack1*2&rack2*4]|(intel&gpu)",
        gres="gpu:a100:4,nvme:1",
        modules=["GCC/12.3.0", "Python/3.11.3-GCCcore-12.3.0"],
        setup=["source ~/envs/storm/bin/activate", "export A='b; c' # really"],
        scratch="$TMPDIR/stormsweep",
    )
    assert site.gres == "gpu:a100:4,nvme:1"
