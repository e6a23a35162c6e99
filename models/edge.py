"""How does a graph become one file that needs nothing but ONNX Runtime? With its encoder inside, record in, probability out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from ratchet.contract import Contract
from ratchet.data.encoding import Encoder

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]


def single_file(graph: bytes, encoder: Encoder, contract: Contract, version: str, threshold: float) -> bytes:
    """A graph over `codes` and `numeric` with the encoder in front: one input of shape (n,) per feature.

    Numbers are float64, not a number where they are missing; words are text, empty where they are missing. The names and
    kinds of the inputs, the threshold and the version stand in the file's metadata.
    """
    network = onnx.load_model_from_string(graph)
    inner = {item.name for item in network.graph.input}
    if not inner <= {"codes", "numeric"}:
        raise ValueError(f"a graph over {', '.join(sorted(inner))} has no single file; only the network's has")
    front = _encoder(encoder)
    # What a quantiser declares beyond what it uses keeps two graphs from being joined.
    front = onnx.version_converter.convert_version(front, _opset(network))
    used = {node.domain for model in (front, network) for node in model.graph.node}
    opsets = {item.domain: item for model in (front, network) for item in model.opset_import if item.domain in used}
    for model in (front, network):
        del model.opset_import[:]
        model.opset_import.extend(opsets.values())
    front.ir_version = network.ir_version = max(front.ir_version, network.ir_version)
    made = compose.merge_models(
        front, compose.add_prefix(network, "net_", rename_inputs=False, rename_outputs=False), [(n, n) for n in inner]
    )
    fields = [{"name": c.name, "kind": "number"} for c in encoder.numeric] + [{"name": c.name, "kind": "text"} for c in encoder.categories]
    told: dict[str, Any] = {"problem": contract.name, "version": version, "threshold": threshold, "fields": json.dumps(fields)}
    for name, value in told.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = name, str(value)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def _opset(model: onnx.ModelProto) -> int:
    return max(item.version for item in model.opset_import if item.domain == "")


def _encoder(encoder: Encoder) -> onnx.ModelProto:
    """The encoder's views `codes` and `numeric` as a graph, in float64 until the last step, as `Encoder.encode` has them."""
    nodes, inputs, scaled, flags, codes = [], [], [], [], []
    constants = {"low": np.float64(-8), "high": np.float64(8), "nought": np.float64(0), "column": np.array([1], dtype=np.int64)}
    for c in encoder.numeric:
        name = c.name
        inputs.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows"]))
        constants |= {f"{name}_center": np.float64(c.center), f"{name}_spread": np.float64(c.spread)}
        nodes += [
            helper.make_node("IsNaN", [name], [f"{name}_gone"]),
            helper.make_node("Sub", [name, f"{name}_center"], [f"{name}_moved"]),
            helper.make_node("Div", [f"{name}_moved", f"{name}_spread"], [f"{name}_divided"]),
            helper.make_node("Clip", [f"{name}_divided", "low", "high"], [f"{name}_clipped"]),
            helper.make_node("Where", [f"{name}_gone", "nought", f"{name}_clipped"], [f"{name}_there"]),
            helper.make_node("Cast", [f"{name}_there"], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}_float", "column"], [f"{name}_scaled"]),
        ]
        scaled.append(f"{name}_scaled")
        if c.may_miss:
            nodes += [
                helper.make_node("Cast", [f"{name}_gone"], [f"{name}_flag1"], to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", [f"{name}_flag1", "column"], [f"{name}_flag"]),
            ]
            flags.append(f"{name}_flag")
    for k in encoder.categories:
        inputs.append(helper.make_tensor_value_info(k.name, TensorProto.STRING, ["rows"]))
        keys, values = [str(value) for value in k.values], list(range(1, len(k.values) + 1))
        nodes += [
            helper.make_node(
                "LabelEncoder", [k.name], [f"{k.name}_code"], domain="ai.onnx.ml", keys_strings=keys, values_int64s=values, default_int64=0
            ),
            helper.make_node("Unsqueeze", [f"{k.name}_code", "column"], [f"{k.name}_codes"]),
        ]
        codes.append(f"{k.name}_codes")
    nodes += [helper.make_node("Concat", [*scaled, *flags], ["numeric"], axis=1), helper.make_node("Concat", codes, ["codes"], axis=1)]
    outputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["rows", len(scaled) + len(flags)]),
        helper.make_tensor_value_info("codes", TensorProto.INT64, ["rows", len(codes)]),
    ]
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "encoder", inputs, outputs, initial), opset_imports=OPSETS, ir_version=9)
