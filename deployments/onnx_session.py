"""ONNX Runtime as this service uses it: on the processor, telling nobody, and never turning round while it waits."""

import os
from typing import Any


def session(model: bytes, threads: int) -> Any:
    """An `InferenceSession` of `model`."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # releases from 1.29 on report to Microsoft unless told before
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other replicas need the processor
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
