"""Runs llama.cpp's HTTP server in this process, for as long as whoever started it lives.

Arguments: the folder of the xllamacpp package, and the settings as JSON. Host and port stand in the
environment. Standard input is a pipe that is never written: its end means that the worker is gone.
"""

import json
import os
import sys

packages, settings = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, packages)

import xllamacpp  # noqa: E402

params = xllamacpp.CommonParams()
params.model.path = settings["model_path"]
params.model_alias = {settings["alias"]} if isinstance(params.model_alias, (set, frozenset)) else settings["alias"]
params.hostnames = [os.environ["HOST"]]
params.port = int(os.environ["PORT"])
params.n_parallel = settings["slots"]
params.n_ctx = settings["total_context"]
if settings["threads"]:
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
if settings["gpu_layers"] is not None:
    params.n_gpu_layers = settings["gpu_layers"]
if settings["cache_ram_mib"] is not None:
    params.cache_ram_mib = settings["cache_ram_mib"]
# The worker chooses the slots.
params.slot_prompt_similarity = 0.0
params.use_jinja = True
params.embedding = settings["embeddings"] or settings["reranking"]
if settings["pooling"]:
    params.pooling_type = getattr(xllamacpp.llama_pooling_type, "LLAMA_POOLING_TYPE_" + settings["pooling"].upper())
if settings["reranking"]:
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
params.endpoint_metrics = True
params.endpoint_slots = True
params.ui = False

server = xllamacpp.Server(params)
print("listening on", server.listening_address, flush=True)

sys.stdin.buffer.read()
# Nobody is left to answer to; waiting for the server's threads would only hold memory.
os._exit(0)
