"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for GPUs.

Both in a process of their own, as Triton decides when it is imported whether to interpret.
"""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

RUN = """
import torch
from paramz.reparam.kernels import triton_kernels as kernels

def close(found, wanted, tolerance):
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f.double(), w.detach(), rtol=tolerance, atol=tolerance)

torch.set_num_threads(1)
torch.manual_seed(0)
for shape, axis in (((7, 33), 0), ((9, 5), 1), ((5, 3, 3, 3), 0), ((2, 2500), 0)):
    v, dw = torch.randn(shape), torch.randn(shape)
    g = torch.randn([n if a == axis else 1 for a, n in enumerate(shape)])
    exact = [t.double().requires_grad_() for t in (v, g)]
    dims = [a for a in range(len(shape)) if a != axis]
    weight = exact[0] * exact[1] / torch.linalg.vector_norm(exact[0], dim=dims, keepdim=True)
    w, length = kernels.normalize(v, g, axis)
    close([w], [weight], 1e-6)
    found = kernels.normalize_backward(dw, v, g, length, axis)
    close(found, torch.autograd.grad(weight, exact, dw.double()), 2e-6)

v, dw, a, b = 3 * torch.randn(50, 70), torch.randn(50, 70), torch.tensor(1.3), torch.tensor(0.7)
exact = [t.double().requires_grad_() for t in (v, a.log(), b.log())]
weight = exact[1].exp() * torch.atan(exact[0] / exact[2].exp())
close([kernels.compand(v, a, b)], [weight], 1e-6)
close(kernels.compand_backward(dw, v, a, b), torch.autograd.grad(weight, exact, dw.double()), 5e-6)

# The series for arctan, over all magnitudes.
x = torch.logspace(-8, 8, 4000)
x = torch.cat([x, -x, torch.zeros(1)])
one = torch.tensor(1.0)
close([kernels.compand(x, one, one)], [torch.atan(x.double())], 5e-7)
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from paramz.reparam.kernels import triton_kernels as kernels

ARGUMENTS = {
    "_normalize": ("v", "g", "w", "length", "columns"),
    "_normalize_backward": ("dw", "v", "g", "length", "dv", "dg", "columns"),
    "_compand": ("v", "a", "b", "w", "size"),
    "_compand_backward": ("dw", "v", "a", "b", "dv", "da", "db", "size"),
}
GPUS = (("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64))
for target in (GPUTarget(*gpu) for gpu in GPUS):
    for name, arguments in ARGUMENTS.items():
        for dtype in ("*fp32", "*bf16"):
            types = {n: "i32" if n in ("columns", "size") else dtype for n in arguments}
            types |= {n: "*fp32" for n in ("length", "da", "db") if n in arguments}
            source = ASTSource(
                fn=getattr(kernels, name),
                signature={**types, "BLOCK": "constexpr"},
                constexprs={"BLOCK": kernels._BLOCK},
            )
            made = triton.compile(source, target=target)
            binary = made.asm.get("cubin") or made.asm.get("hsaco")
            print(target.backend, target.arch, name, dtype, len(binary))
            assert binary[:4] == bytes([127]) + b"ELF"
"""


def run(code: str, monkeypatch: pytest.MonkeyPatch, interpret: str) -> str:
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_interpreter_finds_the_formulas(monkeypatch: pytest.MonkeyPatch):
    run(RUN, monkeypatch, "1")


def test_they_compile_for_gpus_of_two_makers(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert len(run(COMPILE, monkeypatch, "0").splitlines()) == 3 * 4 * 2
