"""How does a graph become one file that needs nothing but ONNX Runtime? With its encoder inside, record in, probability out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.data.values import as_text

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]


def single_file(graph: bytes, encoder: Encoder, contract: Contract, version: str, threshold: float) -> bytes:
    """A graph over `codes` and `numeric` with the encoder in front: one input of shape (n,) per feature.

    Numbers are float64, not a number where they are missing; words are text, empty where they are missing. The names and
    kinds of the inputs, the threshold and the version stand in the file's metadata.
    """
    network = onnx.load_model_from_string(graph)
    inner = [item.name for item in network.graph.input]
    if not set(inner) <= {"codes", "numeric"}:
        raise ValueError(f"a graph over {', '.join(sorted(inner))} has no single file; only the network's has")
    front = _encoder(encoder, inner)
    # What a quantiser declares beyond what it uses keeps two graphs from being joined.
    front = onnx.version_converter.convert_version(front, _opset(network))
    used = {node.domain for model in (front, network) for node in model.graph.node}
    opsets = {item.domain: item for model in (front, network) for item in model.opset_import if item.domain in used}
    for model in (front, network):
        del model.opset_import[:]
        model.opset_import.extend(opsets.values())
    front.ir_version = network.ir_version = max(front.ir_version, network.ir_version)
    made = compose.merge_models(front, compose.add_prefix(network, "//"), [(f"/{name}", f"//{name}") for name in inner])
    needed = {column.name: column.missing == 0 for column in contract.features}
    fields: list[dict[str, Any]] = [{"name": c.name, "kind": "number", "required": needed[c.name]} for c in encoder.numeric]
    for k in encoder.categories:
        fields.append({"name": k.name, "kind": "text", "required": needed[k.name], "values": [as_text(value) for value in k.values]})
    # A request names them too, and the model asks for none of them.
    ignored = [column.name for column in contract.requested if column.name not in needed]
    told: dict[str, Any] = {
        "problem": contract.name,
        "version": version,
        "threshold": threshold,
        "fields": json.dumps(fields),
        "ignored": json.dumps(ignored),
    }
    for name, value in told.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = name, str(value)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def _opset(model: onnx.ModelProto) -> int:
    return max(item.version for item in model.opset_import if item.domain == "")


def _encoder(encoder: Encoder, views: Sequence[str]) -> onnx.ModelProto:
    """Those of the encoder's views `codes` and `numeric` as a graph, in float64 until the last step, as `Encoder.encode` has them.

    A feature may have any name that a contract takes: what is not an input begins with a stroke, which none may hold.
    """
    nodes, inputs, scaled, flags, codes = [], [], [], [], []
    constants = {"/low": np.float64(-8), "/high": np.float64(8), "/nought": np.float64(0), "/column": np.array([1], dtype=np.int64)}
    for c in encoder.numeric:
        inputs.append(helper.make_tensor_value_info(c.name, TensorProto.DOUBLE, ["rows"]))
        at = f"/{c.name}/"
        constants |= {f"{at}center": np.float64(c.center), f"{at}spread": np.float64(c.spread)}
        nodes += [
            helper.make_node("IsNaN", [c.name], [f"{at}gone"]),
            helper.make_node("Sub", [c.name, f"{at}center"], [f"{at}moved"]),
            helper.make_node("Div", [f"{at}moved", f"{at}spread"], [f"{at}divided"]),
            helper.make_node("Clip", [f"{at}divided", "/low", "/high"], [f"{at}clipped"]),
            helper.make_node("Where", [f"{at}gone", "/nought", f"{at}clipped"], [f"{at}there"]),
            helper.make_node("Cast", [f"{at}there"], [f"{at}float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{at}float", "/column"], [f"{at}scaled"]),
        ]
        scaled.append(f"{at}scaled")
        if c.may_miss:
            nodes += [
                helper.make_node("Cast", [f"{at}gone"], [f"{at}flag1"], to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", [f"{at}flag1", "/column"], [f"{at}flag"]),
            ]
            flags.append(f"{at}flag")
    for k in encoder.categories:
        inputs.append(helper.make_tensor_value_info(k.name, TensorProto.STRING, ["rows"]))
        at = f"/{k.name}/"
        keys, values = [as_text(value) for value in k.values], list(range(1, len(k.values) + 1))
        nodes += [
            helper.make_node(
                "LabelEncoder", [k.name], [f"{at}code"], domain="ai.onnx.ml", keys_strings=keys, values_int64s=values, default_int64=0
            ),
            helper.make_node("Unsqueeze", [f"{at}code", "/column"], [f"{at}codes"]),
        ]
        codes.append(f"{at}codes")
    outputs = []
    for view, parts, kind in (("numeric", [*scaled, *flags], TensorProto.FLOAT), ("codes", codes, TensorProto.INT64)):
        if view in views:
            if not parts:
                raise ValueError(f"the graph asks for {view}, and no feature is of that kind")
            nodes.append(helper.make_node("Concat", parts, [f"/{view}"], axis=1))
            outputs.append(helper.make_tensor_value_info(f"/{view}", kind, ["rows", len(parts)]))
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "encoder", inputs, outputs, initial), opset_imports=OPSETS, ir_version=9)
