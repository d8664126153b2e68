"""A cluster profile: the settings that a site asks for, kept apart from the sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from paramz.sweeps.spec.yamlfile import read_model


class Pack(BaseModel):
    """How trials share a job.

    Attributes:
        workers: how many trials of a job run at once, each in a process of its own.
        minutes: a job takes as many rounds of trials as their time limits allow within these
            minutes, and at least one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    workers: PositiveInt = 1
    minutes: PositiveFloat = 60.0


class Profile(BaseModel):
    """The settings of sbatch beyond the resources of the trials.

    Attributes:
        partition: passed to sbatch, as are account, qos, constraint, exclude and nodelist.
        account: see ``partition``.
        qos: see ``partition``.
        constraint: see ``partition``.
        exclude: see ``partition``.
        nodelist: see ``partition``.
        gpus: whether jobs ask for the GPUs that the trials of a spec use where there are any; False
            for partitions without.
        gpu_type: asks for GPUs as ``--gres=gpu:<type>:n``; None asks for any GPU.
        pack: how trials share a job.
        array_parallelism: how many jobs of an array run at once.
        max_array: how many jobs one array may have; None asks the cluster (MaxArraySize).
        max_jobs: how many jobs a sweep may have, unless the cluster allows the user fewer. With
            more trials than fit, a job takes more rounds of them.
        slack_minutes: added to the time limit of a job for its start and end; at least a minute
            more than ``signal_seconds``, as Slurm may warn a job that much too early.
        signal_seconds: how long before its time limit a job is warned (SIGUSR2) to save itself.
        setup: shell lines that run before the job, such as ``module load cuda``.
        environment: variables of the job. They are written to the batch script, which is no place
            for secrets; the variables of the submitting shell reach the job in any case.
        container: image for ``srun --container-image`` (pyxis).
        sbatch: any other option of sbatch, by its long name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    gpus: bool = True
    gpu_type: str | None = None
    pack: Pack = Pack()
    array_parallelism: PositiveInt = 256
    max_array: PositiveInt | None = None
    max_jobs: PositiveInt = 1000
    slack_minutes: Annotated[float, Field(ge=1)] = 5.0
    signal_seconds: Annotated[int, Field(ge=10)] = 120
    setup: list[str] = []
    environment: dict[str, str | int | float] = {}
    container: str | None = None
    sbatch: dict[str, str | int | float | bool] = {}

    @classmethod
    def from_yaml(cls, path: str | Path) -> Profile:
        """Read a profile from a YAML file.

        Raises:
            paramz.sweeps.spec.yamlfile.SpecError: the file is not a valid profile. The message
                gives file and line of every mistake, and what would be right.
        """
        return read_model(Path(path), cls)
