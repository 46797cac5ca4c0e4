#!/usr/bin/env python3
"""Times a BERT training step of PyTorch against those of this project, in one run.

    pip install torch
    python crates/mantissa-zoo/benches/pytorch/step.py [--rounds 3] [--threads 1] [--only fp32,int8]

Each round takes some PyTorch f32 eager steps, then runs the `step` benchmark for as many of its own, so that both meet the
same disturbances. On one thread CPU time is compared, on more the time that passes.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[4]
LAYERS, WIDTH, HEADS, FEED_FORWARD = 4, 256, 4, 1024
SEQUENCE, BATCH, VOCABULARY = 128, 16, 4096


class Layer(nn.Module):
    """A pre-norm encoder layer with separate query, key and value projections, as in the zoo."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, FEED_FORWARD), nn.Linear(FEED_FORWARD, WIDTH)

    def heads(self, x):
        return x.view(BATCH, SEQUENCE, HEADS, WIDTH // HEADS).transpose(1, 2)

    def forward(self, x):
        y = self.norm_2(x)
        attended = nn.functional.scaled_dot_product_attention(
            self.heads(self.query(y)), self.heads(self.key(y)), self.heads(self.value(y))
        )
        x = x + self.output(attended.transpose(1, 2).reshape(BATCH, SEQUENCE, WIDTH))
        return x + self.outer(nn.functional.gelu(self.inner(self.norm_1(x))))


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(SEQUENCE, WIDTH)
        self.embedding_norm, self.output_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        places = torch.arange(SEQUENCE).unsqueeze(0)
        x = self.layers(self.embedding_norm(self.tokens(tokens) + self.places(places)))
        return self.head(self.output_norm(x.reshape(-1, WIDTH)))


def pytorch_step(model, optimizer):
    tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE))
    targets = torch.randint(VOCABULARY, (BATCH * SEQUENCE,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(tokens), targets).backward()
    optimizer.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="alternations between the two (default 3)")
    parser.add_argument("--steps", type=int, default=7, help="steps of each in a round (default 7)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="fp32,bf16,fp8-hybrid,mxfp8,int8,plan", help="variants of the benchmark")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    model = Bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pytorch_step(model, optimizer)
    command = ["cargo", "bench", "--quiet", "--workspace", "--bench", "step", "--"]
    command += ["--json", "--measure", "time", "--rounds", str(arguments.steps)]
    command += ["--threads", str(arguments.threads), "--only", arguments.only]

    milliseconds = {"PyTorch f32 eager": []}
    for _ in range(arguments.rounds):
        for _ in range(arguments.steps):
            started = clock()
            pytorch_step(model, optimizer)
            milliseconds["PyTorch f32 eager"].append(1e3 * (clock() - started))
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for line in output.splitlines():
            row = json.loads(line)
            milliseconds.setdefault(row["step"], []).append(row["milliseconds"])

    reference = statistics.median(milliseconds["PyTorch f32 eager"])
    print(f"PyTorch {torch.__version__}, {arguments.threads} threads")
    print(f"{'step':<22} {'ms':>8} {'ratio to PyTorch':>22}")
    for name, values in milliseconds.items():
        median = statistics.median(values)
        print(f"{name:<22} {median:>8.0f} {median / reference:>22.3f}")


if __name__ == "__main__":
    main()
