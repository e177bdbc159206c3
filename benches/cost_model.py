#!/usr/bin/env python3
"""The model of docs/scaling.md: how much of a step 8 to 1024 GPUs spend on each other, from compute, bucket sizes and link
bandwidths. Nothing is measured here; every assumption is an option. usage: cost_model.py [--mfu 0.4] [--nic-gbs 50]"""
import argparse, math

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--peak-tflops", type=float, default=989, help="bf16, dense, a GPU (H100 or H200 SXM: 989)")
parser.add_argument("--mfu", type=float, default=0.40, help="share of the peak that forward and backward reach alone")
parser.add_argument("--nvlink-gbs", type=float, default=450, help="GB/s a GPU and direction inside a host of 8")
parser.add_argument("--nic-gbs", type=float, default=50, help="GB/s a GPU and direction between hosts (400 Gb/s: 50)")
parser.add_argument("--link-share", type=float, default=0.8, help="share of the link that a collective reaches")
parser.add_argument("--latency-us", type=float, default=20, help="start of a collective, and each level of its tree")
parser.add_argument("--bucket-mb", type=float, default=25)
args = parser.parse_args()

# Name, parameters, parameters of the embedding (complete last), layers, hidden size, sequence length.
MODELS = [("125 M", 0.125e9, 0.025e9, 12, 768, 2048), ("1.3 B", 1.3e9, 0.066e9, 24, 2048, 2048), ("7 B", 7e9, 0.13e9, 32, 4096, 4096)]


def collective(size, world, passes):
    """Seconds in which `size` bytes are added (2 passes: all-reduce; 1: reduce-scatter or all-gather) among `world`."""
    link = (args.nvlink_gbs if world <= 8 else args.nic_gbs) * 1e9 * args.link_share
    return passes * size * (world - 1) / world / link + args.latency_us * 1e-6 * math.ceil(math.log2(world) + 1)


def step(model, world, tokens, micro_batches, zero):
    """Seconds of compute, and seconds in which it stands still, of one step with `tokens` a GPU and micro-batch."""
    _, params, embedding, layers, hidden, seq = model
    flops = (6 * params + 6 * layers * hidden * seq) * tokens  # causal attention: half of 12 * layers * hidden * seq
    compute = flops / (args.peak_tflops * 1e12 * args.mfu)
    backward, blocks = compute * 2 / 3, 4 * (params - embedding)
    count = max(1, round(blocks / (args.bucket_mb * 1e6)))
    passes = 2 if zero == 0 else 1

    def exposed():
        """Buckets are ready one after another in the backward pass; the network takes them in turn."""
        free = 0.0
        for bucket in range(count):
            ready = backward * (bucket + 1) / count
            free = max(free, ready) + collective(blocks / count, world, passes)
        return max(free, backward) + collective(4 * embedding, world, passes) - backward

    still = exposed() * (micro_batches if zero == 2 else 1)
    if zero > 0:  # updated parameters are gathered after the update
        still += collective(4 * params, world, 1)
    return compute * micro_batches, still


print("| model | tokens a GPU and step | zero | " + " | ".join(f"{world} GPUs" for world in (8, 16, 64, 256, 1024)) + " |")
print("|---|---|---|" + "---|" * 5)
for model in MODELS:
    for tokens, micro_batches in ((16384, 1), (16384, 8)):
        for zero in (0, 1, 2):
            shares = []
            for world in (8, 16, 64, 256, 1024):
                compute, still = step(model, world, tokens, micro_batches, zero)
                shares.append(f"{compute / (compute + still):.0%}")
            print(f"| {model[0]} | {tokens * micro_batches // 1024} k | {zero} | " + " | ".join(shares) + " |")
