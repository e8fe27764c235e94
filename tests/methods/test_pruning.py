import copy
from itertools import product

import pytest
import torch
from torch import nn

from distill.core import Action, Context, Denoiser, DistillError, Rng, Role, Roles
from distill.core.paths import PATHS
from distill.methods.pruning import ConstantTime, DecideGates, DrawGates, Gates, LearnedDepth, gates_of


class Layer(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.modulation, self.n = nn.Linear(1, 3), n

    def forward(self, h, moment):
        return h + 0.1 * (self.n + 1) * torch.tanh(h + self.modulation(moment))


class Net(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.blocks = nn.ModuleList(map(Layer, range(layers)))

    def forward(self, x, t, cond):
        for block in self.blocks:
            x = block(x, t[:, None])
        return x


def roles(**options):
    torch.manual_seed(0)
    denoiser = Denoiser(Net(8), PATHS["flow"](), "x0", shape=(3,), taps=("blocks.0", "blocks.7"))
    both = Roles({"teacher": Role("teacher", denoiser), "student": Role("student", copy.deepcopy(denoiser))})
    LearnedDepth(groups=2, **options).apply(both, "student")
    return both


def drawn(both, seed=0):
    ctx = Context(both, Rng(seed), progress=0.5)
    DrawGates().apply(ctx)
    return gates_of(both["student"])


@pytest.mark.parametrize("shift", range(3))
def test_a_pair_keeps_as_many_layers_whichever_shift_is_drawn(shift):
    gates = Gates(2, 4, 2, 100.0, 1)
    gates.logits.data.normal_()
    gates.shifts.data[:, shift] = 5
    for first, second in product(range(6), repeat=2):
        gates.noise.zero_()
        gates.noise[0, 0, first] = gates.noise[0, 1, second] = 1e4
        mask = gates().view(2, 4)
        assert mask.sum() == 4 and mask[0].sum() == 1 + shift and set(mask.flatten().tolist()) == {0, 1}


def test_single_layers_are_not_shifted_and_draws_differ_within_a_batch():
    gates = drawn(roles(keep=1, draws=16))
    masks = gates().view(16, 2, 4)
    assert (masks.sum(2) == 1).all() and len(set(map(tuple, masks.flatten(1).int().tolist()))) > 3


def test_open_gates_change_nothing_and_shut_ones_hand_on():
    both = roles(keep=2)
    student, teacher, x = both["student"], both["teacher"], torch.randn(5, 3)
    gates = gates_of(student)
    gates.decided.fill_(True)
    assert torch.equal(student.ask(x, 0.5).x0, teacher.ask(x, 0.5).x0)
    gates.kept.zero_()
    assert torch.equal(student.ask(x, 0.5).x0, x)


def test_soft_draws_carry_gradient_to_choices_and_shifts():
    both = roles(keep=2)
    gates = drawn(both)
    both["student"].predict(torch.randn(4, 3), 0.5).x0.square().sum().backward()
    assert gates.logits.grad.abs().sum() > 0 and gates.shifts.grad.abs().sum() > 0


def test_the_most_probable_layers_stay_and_what_is_decided_is_not_changed():
    both = roles(keep=1)
    gates = drawn(both)
    gates.logits.data[0, 2] = gates.logits.data[1, 3] = 1
    DecideGates().apply(Context(both, Rng(0)))
    assert gates.kept.nonzero().flatten().tolist() == [2, 7] and gates.entropy().max() < 0.01
    gates.logits.data.zero_()
    gates.decide()
    assert gates.kept.nonzero().flatten().tolist() == [2, 7]


def test_outside_of_the_run_only_the_kept_layers_are_left_and_no_time():
    both = roles(keep=1)
    student, x = both["student"], torch.randn(5, 3)
    ConstantTime(parts=("modulation",), time=1.0).apply(both, "student")
    gates_of(student).decide()
    alone = student.alone()
    assert torch.allclose(alone.predict(x, 1.0).x0, student.ask(x, 1.0).x0, atol=1e-6)
    assert len(alone.network.blocks) == 2 and alone.taps == ("blocks.0",) and not list(alone.parameters())
    assert torch.equal(alone.predict(x, 1.0).x0, alone.predict(x, 0.3).x0)


def test_what_cannot_be_pruned_is_refused():
    for options in ({"layers": "nowhere"}, {"keep": 4}):
        with pytest.raises(DistillError):
            roles(**options)
    with pytest.raises(DistillError, match="no gates"):
        gates_of(roles()["teacher"])
    with pytest.raises(DistillError, match="no part"):
        ConstantTime(parts=("nothing",)).constant(roles()["teacher"].denoiser)


def test_drawing_and_deciding_are_saved_with_the_role():
    assert all(isinstance(a, Action) and a.changes == ("student",) for a in (DrawGates(), DecideGates()))
    assert "network.gates.noise" in roles()["student"].tensors()
