"""Train a small sparse decoder on text made on the spot, save it, load it, and generate with a cache.

    python examples/train_decoder.py

takes under a minute on two CPU cores and runs on a GPU where there is one. The attention of the model is a package that
`build_package` writes first, as `sparsedsl build STACK -o kernels/` does; the model imports torch and that package.
The text needs memory: each line names a colour for three animals and asks for one of them at its end, so the answer
stands far from the question.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

import sparsedsl as sd
from sparsedsl.codegen.package import build_package

ANIMALS = ("cat", "dog", "owl", "fox", "hen")
COLOURS = ("red", "blue", "green", "black", "white")
LETTERS = sorted({*"".join((*ANIMALS, *COLOURS)), *" :;?=\n"})
NUMBER = {letter: number for number, letter in enumerate(LETTERS)}

# Layer by layer: near keys, then powers of two. Together they reach every earlier token; `check` proves it.
LAYERS = sd.cycle([sd.sliding(24), sd.sliding(4) | sd.power() | sd.sink(4) & sd.causal()], layers=4)
CONTEXT = 128

KeysAndValues = tuple[Tensor, Tensor]


def text_of(lines: int, seed: int) -> str:
    """Lines such as `cat:red;owl:blue;fox:red?owl=blue`."""
    draw = random.Random(seed)
    made = []
    for _ in range(lines):
        pairs = {animal: draw.choice(COLOURS) for animal in draw.sample(ANIMALS, 3)}
        asked = draw.choice([*pairs])
        made.append(";".join(f"{animal}:{colour}" for animal, colour in pairs.items()) + f"?{asked}={pairs[asked]}\n")
    return "".join(made)


def encoded(text: str) -> Tensor:
    """The letters as numbers."""
    return torch.tensor([NUMBER[letter] for letter in text])


def decoded(tokens: Tensor) -> str:
    """The numbers as letters."""
    return "".join(LETTERS[number] for number in tokens.tolist())


class Layer(torch.nn.Module):
    """Sparse attention by the kernels of this layer, and two dense maps, each beside a residual connection."""

    def __init__(self, dim: int, kernels: ModuleType, number: int) -> None:
        super().__init__()
        self.kernels, self.number = kernels, number
        self.before_attention, self.before_maps = torch.nn.LayerNorm(dim), torch.nn.LayerNorm(dim)
        # Two query heads share a key head.
        self.q, self.o = torch.nn.Linear(dim, dim), torch.nn.Linear(dim, dim)
        self.k, self.v = torch.nn.Linear(dim, dim // 2), torch.nn.Linear(dim, dim // 2)
        self.maps = torch.nn.Sequential(torch.nn.Linear(dim, 4 * dim), torch.nn.GELU(), torch.nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, past: KeysAndValues | None) -> tuple[Tensor, KeysAndValues]:
        """(batch, length, dim) in and out, with the keys and values so far."""
        inside = self.before_attention(x)
        q, k, v = (project(inside).unflatten(-1, (-1, 16)).transpose(1, 2) for project in (self.q, self.k, self.v))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        out = self.kernels.attention(q, k, v, layer=self.number)
        x = x + self.o(out.transpose(1, 2).flatten(2))
        return x + self.maps(self.before_maps(x)), (k, v)


class Decoder(torch.nn.Module):
    """A decoder with as many layers as the kernels have patterns for, and learned positions."""

    def __init__(self, dim: int, kernels: ModuleType) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(len(LETTERS), dim)
        self.places = torch.nn.Embedding(CONTEXT, dim)
        self.layers = torch.nn.ModuleList(Layer(dim, kernels, number) for number in range(kernels.LAYERS))
        self.end = torch.nn.Sequential(torch.nn.LayerNorm(dim), torch.nn.Linear(dim, len(LETTERS)))

    def forward(self, tokens: Tensor, cache: list[KeysAndValues] | None = None) -> tuple[Tensor, list[KeysAndValues]]:
        """Logits of the next letters after `tokens` (batch, length), and the cache that now holds them too."""
        start = cache[0][0].shape[2] if cache else 0
        x = self.words(tokens) + self.places.weight[start : start + tokens.shape[1]]
        kept = []
        for number, layer in enumerate(self.layers):
            x, past = layer(x, cache[number] if cache else None)
            kept.append(past)
        return cast(Tensor, self.end(x)), kept


def built(folder: Path) -> ModuleType:
    """The package of kernels for `LAYERS`, written to folder/decoder_kernels and imported."""
    build_package(LAYERS, folder / "decoder_kernels")
    sys.path.insert(0, str(folder))
    return import_module("decoder_kernels")


def train(model: Decoder, tokens: Tensor, steps: int, batch: int) -> list[float]:
    """Losses, step by step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    losses = []
    for step in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (batch,), generator=torch.Generator().manual_seed(step))
        window = torch.stack([tokens[start : start + CONTEXT] for start in starts.tolist()])
        logits, _ = model(window[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            print(f"  step {step:4}  loss {losses[-1]:.3f}", flush=True)
    return losses


@torch.no_grad()
def generate(model: Decoder, prompt: Tensor, new: int, *, cached: bool) -> tuple[Tensor, Tensor]:
    """Greedy letters and the logits that chose them; with a cache each step is one query against the keys so far."""
    tokens, chosen = prompt, []
    logits, cache = model(tokens)
    for _ in range(new):
        chosen.append(logits[:, -1])
        tokens = torch.cat([tokens, chosen[-1].argmax(-1, keepdim=True)], 1)
        logits, cache = model(tokens[:, -1:], cache) if cached else model(tokens)
    return tokens[:, prompt.shape[1] :], torch.stack(chosen, 1)


def main(arguments: list[str] | None = None) -> None:
    """Check the stack, train, save, load, generate both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, help="a folder for the weights and the kernels; a temporary one by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        run(options, options.out or Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    """All of it, with files in the folder."""
    start = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)

    verdict = sd.check(LAYERS, seq_len=CONTEXT)
    print(f"{LAYERS}\n  at {CONTEXT} tokens: {'complete' if verdict.complete else 'INCOMPLETE'}, depth {verdict.depth}")

    tokens = encoded(text_of(1000, seed=1)).to(device)
    kernels = built(folder)
    model = Decoder(options.dim, kernels).to(device)
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"training {weights:,} weights on {len(tokens):,} letters, {device}")
    losses = train(model, tokens, options.steps, options.batch)

    torch.save(model.state_dict(), folder / "decoder.pt")
    loaded = Decoder(options.dim, kernels).to(device).eval()
    loaded.load_state_dict(torch.load(folder / "decoder.pt", weights_only=True, map_location=device))

    prompt = encoded(text_of(2, seed=2) + "cat:blue;owl:red;hen:green?")[None].to(device)
    new = min(40, CONTEXT - prompt.shape[1])
    quick, quick_logits = generate(loaded, prompt, new, cached=True)
    slow, slow_logits = generate(loaded, prompt, new, cached=False)
    error = (quick_logits - slow_logits).abs().max().item()
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}; saved and loaded; after {decoded(prompt[0, -27:])!r} it writes:")
    print(f"  {decoded(quick[0])!r}")
    assert torch.equal(quick, slow), "generation with the cache differs from recomputation"
    print(f"generation with the cache equals recomputation: {new} letters, logits within {error:.0e}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
