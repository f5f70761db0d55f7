"""The diffusion's noise schedule: diffusers' own, with all noise at its end and no clipping."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler

#: `clip_sample` defaults to true in diffusers, and would cut codes off at one without a word.
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def for_training() -> DDPMScheduler:
    """Adds noise and gives velocities."""
    return DDPMScheduler(**SCHEDULE)


def for_sampling(steps: int) -> DDIMScheduler:
    """Takes noise back in so many steps."""
    schedule = DDIMScheduler(**SCHEDULE)
    schedule.set_timesteps(steps)
    return schedule
