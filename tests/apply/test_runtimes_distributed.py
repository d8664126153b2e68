"""Sharded and parallel training equals one process: the same groups, the same losses to 1e-6."""

import pytest
import runtime_jobs
import torch.multiprocessing as mp


def test_two_processes(tmp_path):
    mp.spawn(runtime_jobs.two_processes, (2, str(tmp_path)), nprocs=2)


@pytest.mark.slow
def test_four_processes(tmp_path):
    mp.spawn(runtime_jobs.four_processes, (4, str(tmp_path)), nprocs=4)
