"""`serving.process.cpus`: how many processors a container may use."""

import os

import pytest

from serving.process.cpus import count_cpus

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000\n", HERE),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("6400000 100000\n", HERE),
        ("", HERE),
        ("100000 0\n", HERE),
    ],
)
def test_the_limit_of_the_control_group_counts(tmp_path, content, expected):
    (tmp_path / "cpu.max").write_text(content)
    assert count_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", HERE), ("100000", "100000", 1), ("50000", "100000", 1), ("6400000", "100000", HERE)],
)
def test_the_limit_of_a_control_group_of_version_1_counts(tmp_path, quota, period, expected):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text(f"{period}\n")
    assert count_cpus(tmp_path) == expected


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert count_cpus(tmp_path / "missing") == HERE
