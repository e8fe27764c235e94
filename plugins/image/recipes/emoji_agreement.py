"""Trains the network that tells how well a picture of 32×32 agrees with a text: `python emoji_agreement.py OUT`.

Nine tenths of the names train it, the others test it: each tenth's pictures look for their names among all names of
that tenth. About half an hour on one idle core. The weights that ship: 0.334 of 189 unseen names come first and 0.486
among the first five (chance 0.005 and 0.026), 0.980 and 0.999 of 1,710 seen ones; mean cosine 0.261 and 0.763.
"""

import sys

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from distill.image.datasets_emoji import Captioned, Emoji
from distill.image.features import EmojiFeatures

STEPS, BATCH, TEMPERATURE = 2500, 128, 0.07


def main(out: str, steps: int = STEPS) -> None:
    """Train, report, write."""
    torch.manual_seed(0)
    data = Emoji(tokens=16).open()
    assert isinstance(data, Captioned)
    texts = torch.stack([data.conditions[[row]]["pooled"][0] for row in range(int(data.rows.max()) + 1)])
    pictures = data.pictures.float() / 127.5 - 1
    order = torch.randperm(len(texts))
    unseen = torch.zeros(len(texts), dtype=torch.bool).index_fill(0, order[: len(texts) // 10], True)
    network = EmojiFeatures()
    network.get_buffer("centre").copy_(texts[~unseen].mean(0))
    goals, train = network.centred(texts), (~unseen[data.rows]).nonzero().flatten()
    names = (~unseen).nonzero().flatten()
    place = torch.full((len(texts),), -1).index_put((names,), torch.arange(len(names)))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = train[torch.randint(len(train), (BATCH,))]
        said = normalize(network.outlet(network(disturbed(pictures[rows]))), dim=1)
        cosines = said @ goals[names].T
        own = place[data.rows[rows]]
        loss = cross_entropy(cosines / TEMPERATURE, own, label_smoothing=0.05) - cosines.gather(1, own[:, None]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{step + 1} loss {float(loss.detach()):.3f}", flush=True)
        if step % 500 == 499 or step + 1 == steps:
            report(network, pictures, data.rows, goals, unseen)
    save_file({name: value.half() for name, value in network.state_dict().items()}, out)


def disturbed(x: Tensor) -> Tensor:
    """Pictures moved, scaled, noised and blurred a little, as samples of a diffusion model are."""
    size, device = len(x), x.device
    scale, shift = 0.85 + 0.35 * torch.rand(size), 0.12 * (2 * torch.rand(size, 2) - 1)
    grid = torch.zeros(size, 2, 3, device=device)
    grid[:, 0, 0], grid[:, 1, 1], grid[:, :, 2] = scale, scale, shift
    moved = grid_sample(x - 1, affine_grid(grid, list(x.shape), align_corners=False), align_corners=False) + 1
    soft = torch.nn.functional.avg_pool2d(moved, 3, 1, 1, count_include_pad=False)
    mixed = torch.lerp(moved, soft, (torch.rand(size, 1, 1, 1) * (torch.rand(size, 1, 1, 1) < 0.5)))
    return mixed * (0.85 + 0.3 * torch.rand(size, 3, 1, 1)) + 0.15 * torch.rand(size, 1, 1, 1) * torch.randn_like(x)


@torch.no_grad()
def report(network: EmojiFeatures, pictures: Tensor, rows: Tensor, goals: Tensor, unseen: Tensor) -> None:
    """How often a picture's own name is the nearest, and among the five nearest, of all names of its kind."""
    said = torch.cat([normalize(network.outlet(network(part)), dim=1) for part in pictures.split(256)])
    for kind, among in (("seen", ~unseen), ("unseen", unseen)):
        here, names = among[rows], among.nonzero().flatten()
        cosines = said[here] @ goals[names].T
        own = cosines.gather(1, (names[None] == rows[here][:, None]).long().argmax(1)[:, None])
        rank = (cosines > own).sum(1)
        found = [float((rank < k).double().mean()) for k in (1, 5)]
        print(f"{kind}: {len(names)} names, first {found[0]:.3f}, of five {found[1]:.3f}, cosine {own.mean():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
