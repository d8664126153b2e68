"""A cluster profile: what a site wants to be told, kept out of the sweep."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from paramz.sweeps.spec.yamlfile import read_model


class Pack(BaseModel):
    """How trials share a job.

    Attributes:
        workers: Trials that run at once in a job, each in a process of its own.
        minutes: A job takes as many rounds of trials as fit into this time by their time limits,
            and at least one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    workers: PositiveInt = 1
    minutes: PositiveFloat = 60.0


class Profile(BaseModel):
    """What sbatch is told beside a trial's resources.

    Attributes:
        partition: Also account, qos, constraint, exclude, nodelist: as sbatch takes them.
        gpu_type: Asks for GPUs as `--gres=gpu:<type>:n`; None asks for any GPU.
        pack: How trials share a job.
        array_parallelism: Jobs of an array that run at once.
        max_array: Jobs in one array; None asks the cluster (MaxArraySize).
        max_jobs: Jobs of a sweep altogether, or fewer if the cluster lets the user submit fewer;
            beyond it a job takes more rounds of trials.
        slack_minutes: Added to a job's time limit for start and end.
        signal_seconds: How long before the end of its time a job is warned (USR2) to save itself.
        setup: Shell lines before the job, e.g. `module load cuda`.
        environment: Variables for the job. Written to the batch script: no place for secrets;
            variables of the submitting shell reach the job anyway.
        container: Image for `srun --container-image` (pyxis).
        sbatch: Any other option of sbatch, by its long name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
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
    def from_yaml(cls, path: str | Path) -> "Profile":
        """Read a profile.

        Raises:
            paramz.sweeps.spec.yamlfile.SpecError: With file, line and cure of every mistake.
        """
        return read_model(Path(path), cls)
