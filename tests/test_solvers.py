"""Every solver's table, run in float64, gives the original samplers' images."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference import DATA, fill, load_arrays, noise, relative_error
from torch import Tensor

from engines.solvers import SOLVERS, integrate, plan
from models import build
from models.spec import Churn, DiffusionDefaults

SAMPLER_TOLERANCE = 1e-4
DEFAULTS = DiffusionDefaults()

Denoiser = Callable[[Tensor, float], Tensor]


def denoiser_of(name: str, salt: str = "", labels: Tensor | None = None) -> Denoiser:
    network = fill(build(load_spec(name)), salt)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return network(x.float(), torch.full((len(x),), sigma), labels).double()

    return denoise


def load_spec(name: str) -> dict[str, object]:
    return dict(json.loads((DATA / f"{name}.json").read_text())["init"])


def latents_of(name: str) -> Tensor:
    return noise(f"{name}/latents", (2, 3, 16, 16)).double()


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("edm-song-vp-tiny-cond", 6),
        ("edm-song-vp-tiny-cond", 18),
        ("edm-song-vp-tiny-uncond", 6),
        ("edm-song-vp-tiny-uncond", 18),
        ("edm2-tiny", 6),
        ("edm2-tiny", 32),
    ],
)
def test_heun_is_algorithm_1(name: str, steps: int) -> None:
    arrays = load_arrays(name)
    labels = arrays["labels"][:2].float() if "labels" in arrays else None
    sample = integrate(plan("heun", steps, DEFAULTS), denoiser_of(name, labels=labels), latents_of(name))
    assert relative_error(sample, arrays[f"heun{steps}"]) < SAMPLER_TOLERANCE


@pytest.mark.parametrize("steps", [5, 8])
def test_dpm_solver_v3_without_statistics(steps: int) -> None:
    arrays = load_arrays("edm2-tiny")
    denoiser = denoiser_of("edm2-tiny", labels=arrays["labels"][:2].float())
    table = plan("dpm-solver-v3", steps, DEFAULTS)
    sample = integrate(table, denoiser, latents_of("edm2-tiny"))
    assert relative_error(sample, arrays[f"dpmv3_{steps}"]) < SAMPLER_TOLERANCE


def test_dpm_solver_v3_rounds_noise_levels_to_its_grid() -> None:
    expected = load_arrays("edm2-tiny")["dpmv3_5_timesteps"]
    sigmas = [call.sigma for call in plan("dpm-solver-v3", 5, DEFAULTS).calls]
    np.testing.assert_allclose(sigmas, expected[:-1], rtol=1e-6)


def test_guidance_by_a_second_network() -> None:
    arrays = load_arrays("edm2-tiny")
    main = denoiser_of("edm2-tiny", labels=arrays["labels"][:2].float())
    guide = denoiser_of("edm2-tiny-uncond", salt="guide/")

    def guided(x: Tensor, sigma: float) -> Tensor:
        return guide(x, sigma) + 1.4 * (main(x, sigma) - guide(x, sigma))

    sample = integrate(plan("heun", 6, DEFAULTS), guided, latents_of("edm2-tiny"))
    assert relative_error(sample, arrays["heun6_guidance1_4"]) < SAMPLER_TOLERANCE


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Ideal denoiser of normal data with deviation 0.5."""
    return x * (0.25 / (0.25 + sigma**2))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpm-solver-v3", 2)])
def test_convergence_order_on_a_gaussian(solver: str, order: int) -> None:
    """For normal data the flow only scales: x(sigma) is proportional to sqrt(sigma^2 + 0.25)."""
    latents = torch.ones(1, dtype=torch.float64)
    errors = []
    for steps in (12, 24):
        table = plan(solver, steps, DEFAULTS)
        last = 0.0 if solver != "dpm-solver-v3" else 0.002
        exact = 80 * np.sqrt((last**2 + 0.25) / (80**2 + 0.25))
        errors.append(abs(integrate(table, gaussian, latents).item() - exact))
    assert errors[1] < errors[0] / (2**order * 0.6)


def test_churn_adds_noise_only_inside_its_range() -> None:
    churn = Churn(s_churn=10, s_min=0.05, s_max=50, s_noise=1.003)
    defaults = DiffusionDefaults(churn=churn)
    plain, stochastic = plan("heun", 8, defaults), plan("heun-stochastic", 8, defaults)
    assert len(plain.calls) == len(stochastic.calls) == 15
    assert stochastic.start_noise == 0  # 80 lies above s_max
    raised = [call.sigma for call in stochastic.calls[::2]]
    for call, sigma in zip(plain.calls[::2], raised, strict=True):
        factor = 1 + min(10 / 8, np.sqrt(2) - 1) if 0.05 <= call.sigma <= 50 else 1
        assert sigma == pytest.approx(call.sigma * factor)
    assert plan("heun-stochastic", 8, DiffusionDefaults(churn=Churn(s_churn=0))).calls[3].noise == 0


def test_churn_keeps_the_distribution_of_gaussian_data() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(40_000, generator=generator, dtype=torch.float64)
    table = plan("heun-stochastic", 400, DiffusionDefaults(churn=Churn(s_noise=1.0)))
    sample = integrate(
        table, gaussian, latents, lambda: torch.randn(40_000, generator=generator, dtype=torch.float64)
    )
    assert sample.std().item() == pytest.approx(0.5, rel=0.01)


def test_errors_say_what_is_possible() -> None:
    with pytest.raises(ValueError, match="needs a source of noise"):
        integrate(plan("heun-stochastic", 8, DEFAULTS), gaussian, torch.ones(1))
    with pytest.raises(ValueError, match=r"one of heun.*got 'rk4'"):
        plan("rk4", 8, DEFAULTS)
    with pytest.raises(ValueError, match="too many"):
        plan("dpm-solver-v3", 200, DEFAULTS)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_one_step_is_the_denoised_start(solver: str) -> None:
    table = plan(solver, 1, DEFAULTS)
    x = integrate(table, lambda x, sigma: torch.full_like(x, 0.3), torch.zeros(1, dtype=torch.float64))
    assert x.item() == pytest.approx(0.3, rel=1e-3)
