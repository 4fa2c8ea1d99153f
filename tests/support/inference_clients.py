"""What `tritonclient` gets from a server, in a process of its own: gevent must not enter the server's.

``python inference_clients.py ADDRESS ROWS.npy`` writes one JSON object.
"""

import asyncio
import itertools
import json
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

OUTPUTS = ("label", "label_id", "answer", "slot", "margin", "p_value", "novel")
FORMS = tuple(itertools.product((True, False), (True, False, None), (None, "gzip", "deflate")))
"""Binary input, binary outputs (None: not named), compression of both ways."""


def tensor(x, *, binary):
    given = triton.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    return given


def arrays(result):
    found = {name: result.as_numpy(name).tolist() for name in OUTPUTS}
    return {name: [it.decode() if isinstance(it, bytes) else it for it in values] for name, values in found.items()}


def asked(binary):
    return None if binary is None else [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]


def options(binary_in, binary_out, coding, x, kind=triton):
    outputs = None if binary_out is None else [kind.InferRequestedOutput(it, binary_data=binary_out) for it in OUTPUTS]
    given = kind.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary_in)
    return {
        "inputs": [given],
        "outputs": outputs,
        "request_compression_algorithm": coding,
        "response_compression_algorithm": coding,
        "request_id": "it's me",
    }


def all_forms(client, x):
    found = []
    for form in FORMS:
        result = client.infer("small", **options(*form, x))
        head = result.get_response()
        found.append({"form": form, "id": head["id"], "version": head["model_version"], **arrays(result)})
    return found


async def all_forms_aio(address, x):
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        return [arrays(await client.infer("small", **options(*form, x, triton_aio))) for form in FORMS]


def error(action):
    try:
        action()
    except InferenceServerException as raised:
        return [raised.status(), raised.message()]
    return None


def errors(client, x):
    rows = {"inputs": [tensor(x, binary=True)]}
    narrow = np.ones((2, 3), np.float32)
    return {
        "no model": error(lambda: client.infer("none", **rows)),
        "no version": error(lambda: client.infer("small", model_version="77", **rows)),
        "shape": error(lambda: client.infer("small", [tensor(narrow, binary=True)])),
        "not finite": error(lambda: client.infer("small", [tensor(x * np.nan, binary=False)])),
        "too many": error(lambda: client.infer("small", [tensor(np.ones((5000, 6), np.float32), binary=True)])),
        "too large": error(lambda: client.infer("small", [tensor(np.ones((400_000, 6), np.float32), binary=True)])),
        "no output": error(lambda: client.infer("small", **rows, outputs=[triton.InferRequestedOutput("logits")])),
        "classification": error(
            lambda: client.infer("small", **rows, outputs=[triton.InferRequestedOutput("label", class_count=3)])
        ),
        "rate": error(lambda: client.infer("small", **rows, parameters={"false_alarm_rate": 2})),
        "timeout": error(lambda: client.infer("small", **rows, timeout=1)),
        "config": error(lambda: client.get_model_config("small")),
        "repository": error(client.get_model_repository_index),
        "statistics": error(lambda: client.get_inference_statistics("small")),
    }


def main(address, file):
    address, x = address.removeprefix("http://"), np.load(file)
    with triton.InferenceServerClient(address, network_timeout=60, connection_timeout=60) as client:
        version = client.get_model_metadata("small")["versions"][0]
        often = client.infer("small", [tensor(x, binary=True)], parameters={"false_alarm_rate": 0.4})
        found = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready("small"),
            "version ready": client.is_model_ready("small", version),
            "other ready": client.is_model_ready("small", "77"),
            "server": client.get_server_metadata(),
            "model": client.get_model_metadata("small"),
            "version": client.get_model_metadata("small", version),
            "at version": client.infer("small", [tensor(x, binary=True)], model_version=version).get_response(),
            "novel at 0.4": often.as_numpy("novel").tolist(),
            "forms": all_forms(client, x),
            "aio": asyncio.run(all_forms_aio(address, x)),
            "errors": errors(client, x),
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
