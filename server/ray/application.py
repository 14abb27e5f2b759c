"""The parts of a cluster, as Ray Serve deploys them."""

from __future__ import annotations

import sys
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

import engines
from models.references import parse_reference
from server import logs
from server.app import create_app
from server.ray.placement import Placement
from server.ray.replica import MakeApp, Replica
from server.ray.router import Router
from server.ray.scaling import PendingCompute
from server.ray.settings import RaySettings
from server.settings import Settings

MANY = 10_000
"""Requests at one replica, waiting ones included: its own admission says no long before."""

ROUTER_CPUS = 0.1
"""What Ray reserves; a router waits most of the time."""


HEAD = "node:__internal_head__"
"""Ray's name for its first machine. Routers stay there: what they have under way dies with theirs, and a
cluster that has lost its first machine is lost anyway."""


def open_app(settings: Settings) -> FastAPI:
    """Put the app of one replica together.

    Raises:
        ModelError: a model is missing or damaged.
        ValueError: the settings do not fit together.
    """
    logs.configure(settings.log_level, sys.stderr)
    references = [parse_reference(name, settings.registry) for name in settings.models]
    versions = [version for reference in references for version in reference.open()]
    return create_app(settings, versions, engines.load, references)


def build(settings: Settings, cluster: RaySettings, make_app: MakeApp = open_app) -> serve.Application:
    """Describe a cluster to `serve.run`.

    Args:
        settings: of every replica; models have to lie on a file system that every node sees.
        cluster: how many of what.
        make_app: makes a replica's app, in its process.
    """
    replicas = serve.deployment(
        Replica,
        name="replica",
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": cluster.replica_cpus, "num_gpus": cluster.replica_gpus},
        graceful_shutdown_timeout_s=settings.deadline_ms / 1000,
        request_router_config=RequestRouterConfig(request_router_class=Placement),
        **_count(cluster),
    )
    routers = serve.deployment(
        Router,
        name="router",
        num_replicas=cluster.routers,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": ROUTER_CPUS, "resources": {HEAD: 0.001}},
    )
    return routers.bind(replicas.bind(make_app, settings), settings, cluster.attempts)


def _count(cluster: RaySettings) -> dict[str, Any]:
    if cluster.min_replicas >= cluster.max_replicas:
        return {"num_replicas": cluster.min_replicas}
    policy = AutoscalingPolicy(
        policy_function=PendingCompute,
        policy_kwargs={"pending_s": cluster.pending_s, "idle_s": cluster.idle_s},
    )
    scaling = AutoscalingConfig(
        min_replicas=cluster.min_replicas,
        max_replicas=cluster.max_replicas,
        metrics_interval_s=1.0,
        look_back_period_s=2.0,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=policy,
    )
    return {"autoscaling_config": scaling}
