"""Scheduler configs become paths, and paths become scheduler configs."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch

from distill.core import DistillError, Sampler
from distill.core.paths import Discrete, Flow, Karras
from distill.core.sampling import Consistency
from distill.image import schedulers

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KNOWN = [
    (diffusers.DDPMScheduler(), "eps"),
    (diffusers.DDPMScheduler(num_train_timesteps=500, beta_schedule="squaredcos_cap_v2"), "eps"),
    (diffusers.DDPMScheduler(prediction_type="sample"), "x0"),
    (diffusers.DDIMScheduler(**STABLE), "eps"),
    (diffusers.DDIMScheduler(**STABLE, prediction_type="v_prediction", rescale_betas_zero_snr=True), "v"),
    (diffusers.EulerDiscreteScheduler(**STABLE, prediction_type="v_prediction"), "v"),
    (diffusers.DDIMScheduler(trained_betas=[0.1, 0.2, 0.3], num_train_timesteps=3), "eps"),
]


@pytest.mark.parametrize(("scheduler", "kind"), KNOWN)
def test_a_table_of_betas_is_read(scheduler, kind):
    path, found = schedulers.read(dict(scheduler.config))
    assert found == kind and isinstance(path, Discrete)
    assert torch.allclose(torch.tensor(path.alphas_cumprod), scheduler.alphas_cumprod, atol=1e-6, rtol=0)
    i = torch.arange(len(path.alphas_cumprod))
    t = (i + 1) / len(i)
    assert torch.allclose(path.alpha(t) ** 2, scheduler.alphas_cumprod, atol=2e-6) and path.alpha(t).isfinite().all()
    assert torch.allclose(path.native(t), i.float(), atol=1e-3)


def test_flow_schedulers_are_read():
    for scheduler in (
        diffusers.FlowMatchEulerDiscreteScheduler(),
        diffusers.FlowMatchHeunDiscreteScheduler(),
    ):
        path, kind = schedulers.read(json.loads(scheduler.to_json_string()))
        assert isinstance(path, Flow) and kind == "velocity"
    flow = {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_start": 0.1,
        "prediction_type": "flow_prediction",
    }
    assert isinstance(schedulers.read(flow)[0], Flow) and isinstance(schedulers.read({})[0], Flow)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (json.loads(diffusers.EDMEulerScheduler().to_json_string()), "EDMEulerScheduler"),
        (
            dict(diffusers.DDPMScheduler().config) | {"beta_schedule": "sigmoid"},
            "'sigmoid' is unknown; known: linear",
        ),
        (dict(diffusers.DDPMScheduler().config) | {"prediction_type": "nonsense"}, "'nonsense'"),
    ],
)
def test_what_cannot_be_read_is_said(config, said):
    with pytest.raises(DistillError, match=said):
        schedulers.read(config)


@pytest.mark.parametrize(("scheduler", "kind"), KNOWN)
@pytest.mark.parametrize("solver", [None, Consistency()])
def test_what_is_written_is_read_again(scheduler, kind, solver, tmp_path):
    path, _ = schedulers.read(dict(scheduler.config))
    schedulers.write(path, kind, Sampler(solver=solver) if solver else Sampler(), tmp_path)
    written = (diffusers.LCMScheduler if solver else diffusers.DDIMScheduler).from_pretrained(tmp_path)
    again, found = schedulers.read(dict(written.config))
    assert found == kind
    assert torch.allclose(torch.tensor(again.alphas_cumprod), torch.tensor(path.alphas_cumprod), atol=1e-6)


def test_paths_and_kinds_that_diffusers_lacks(tmp_path):
    with pytest.raises(DistillError, match="no scheduler for the path Karras"):
        schedulers.write(Karras(), "x0", Sampler(), tmp_path)
    with pytest.raises(DistillError, match="of kind velocity"):
        schedulers.write(Discrete.scaled_linear(), "velocity", Sampler(), tmp_path)
