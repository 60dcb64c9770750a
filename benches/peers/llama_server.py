"""The peer: llama.cpp's own HTTP server, as the package xllamacpp ships it.

usage: llama_server.py MODEL.gguf PORT SLOTS THREADS
"""

import signal
import sys

import xllamacpp

model, port, slots, threads = sys.argv[1], *map(int, sys.argv[2:5])

params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
params.n_ctx = 2048 * slots
params.n_batch = 2048
params.n_ubatch = 512
params.n_gpu_layers = 0
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.warmup = True

server = xllamacpp.Server(params)  # holds the server alive
signal.pause()
