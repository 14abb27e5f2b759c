"""How a cluster is served."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RaySettings(BaseSettings):
    """A cluster's replicas and routers, from the environment (`DDO_RAY_...`).

    Attributes:
        address: of the cluster to join; `auto` is the one that runs on this machine.
        min_replicas, max_replicas: bounds of the number of replicas, one a device.
        replica_cpus, replica_gpus: what a replica takes of a node.
        routers: processes that choose replicas.
        pending_s: engine seconds that may be pending at each replica before there is one more.
        idle_s: seconds for which fewer replicas would have done before one leaves.
        attempts: replicas that are asked before a refusal, or a loss, reaches the client.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="DDO_RAY_")

    address: str = "auto"
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    replica_cpus: float = Field(default=1.0, ge=0)
    replica_gpus: float = Field(default=0.0, ge=0)
    routers: int = Field(default=1, ge=1)
    pending_s: float = Field(default=2.0, gt=0)
    idle_s: float = Field(default=60.0, ge=0)
    attempts: int = Field(default=3, ge=1)
