"""Writes weights in half precision, as this package ships them: `python halve.py IN.safetensors OUT.safetensors`."""

import sys

from safetensors.torch import load_file, save_file


def main(source: str, out: str) -> None:
    """Read, halve, write; names lose what `distill export` puts before those of the network."""
    tensors = load_file(source)
    save_file({name.removeprefix("network.net."): value.half() for name, value in tensors.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
