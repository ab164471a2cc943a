"""Compile every kernel for one target without a GPU; print what came out, as one line of JSON.

The operations are called with CPU tensors while launches are recorded, so what is compiled is what
they launch: the same types, flags and tiles.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
import triton
from aot_cases import CASES
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from zoo.kernels.language import recorded_launches

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32",
    torch.uint8: "*u8", torch.bool: "*i1", torch.float64: "*fp64",
}  # fmt: skip
ATOMIC = re.compile(r"\b(atom|red)\.\w|\b\w*_atomic_\w+")
CONTRACTED = re.compile(r"\bfma\.rn\.f32\b")


def signature(launch):
    names = launch.kernel.arg_names
    types, constants, aligned = {}, {}, {}
    for index, name in enumerate(names):
        if name in launch.constants:
            types[name] = "constexpr"
            constants[(index,)] = launch.constants[name]
            continue
        value = launch.arguments[index]
        if value is None:
            types[name], constants[(index,)] = "constexpr", None
        elif isinstance(value, torch.Tensor):
            types[name] = TYPES[value.dtype]
            aligned[(index,)] = [["tt.divisibility", 16]]
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
    return types, constants, aligned


def compile_one(launch, target):
    types, constants, aligned = signature(launch)
    source = ASTSource(fn=launch.kernel, signature=types, constexprs=constants, attrs=aligned)
    options = {"num_warps": launch.warps, "enable_fp_fusion": False}
    return triton.compile(source, target=target, options=options)


def usage(built, target, folder):
    """Return (registers, bytes of stack) of a compiled kernel."""
    if target.backend == "hip":
        text = built.asm["amdgcn"]
        registers = max(int(n) for n in re.findall(r"\.vgpr_count:\s*(\d+)", text))
        stack = max(int(n) for n in re.findall(r"\.private_segment_fixed_size:\s*(\d+)", text))
        spilled = max(int(n) for n in re.findall(r"\.vgpr_spill_count:\s*(\d+)", text))
        return min(registers, 255), stack if spilled else 0
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run(
        [tool, "-res-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    registers = max(int(n) for n in re.findall(r"REG:(\d+)", text))
    stack = max(int(n) for n in re.findall(r"STACK:(\d+)", text))
    return registers, stack


def describe(case, launch, target, folder):
    built = compile_one(launch, target)
    text = built.asm["amdgcn" if target.backend == "hip" else "ptx"]
    registers, stack = usage(built, target, folder)
    # Matrix products and the error function are made of contracted operations by design.
    plain = "tl.dot(" not in launch.kernel.src and launch.constants.get("ACT") != "gelu"
    return {
        "case": case,
        "kernel": launch.kernel.__name__,
        "registers": registers,
        "spilled": stack,
        "atomics": [m.group() for m in ATOMIC.finditer(text)],
        "contracted": bool(plain and CONTRACTED.search(text)),
    }


def main():
    target = TARGETS[sys.argv[1]]
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    found, seen = [], set()
    for name, call in CASES.items():
        with recorded_launches() as launches:
            call()
        for launch in launches:
            key = (launch.kernel.__name__, str(signature(launch)), launch.warps)
            if key not in seen:
                seen.add(key)
                found.append(describe(name, launch, target, folder))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
