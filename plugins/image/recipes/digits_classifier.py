"""Trains the small classifier in whose features digits are compared: `python digits_classifier.py OUT.safetensors`.

Three quarters of scikit-learn's digits train it, a quarter tests it; it ends at about 99 % test accuracy within half a
minute on one core. The features are scaled to unit variance, which changes no answer: a ReLU follows them.
"""

import sys

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, dropout, relu

from distill.core import Samples
from distill.image.datasets import Digits
from distill.image.features import DigitFeatures

EPOCHS, BATCH = 60, 64


def main(out: str) -> None:
    """Train, report, write."""
    torch.manual_seed(0)
    dataset = Digits().open()
    assert isinstance(dataset, Samples)
    data = dataset.tensors
    order = torch.randperm(len(data["x"]))
    train, test = order[:1347], order[1347:]
    network = DigitFeatures()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = train[torch.randint(len(train), (BATCH,))]
        noisy = data["x"][rows] + 0.1 * torch.randn(BATCH, 1, 8, 8)
        logits = network.fc2(dropout(relu(network(noisy)), 0.3))
        loss = cross_entropy(logits, data["label"][rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        spread = network(data["x"]).std()
        network.fc1.weight /= spread
        network.fc1.bias /= spread
        network.fc2.weight *= spread
        right = network.classify(data["x"][test]).argmax(1) == data["label"][test]
    print(f"test accuracy {right.double().mean():.4f}")
    save_file(network.state_dict(), out)


if __name__ == "__main__":
    main(sys.argv[1])
