"""The network: embeddings for nominal columns, residual blocks, early stopping (after Gorishniy et al., 2021)."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from models.fitted import Fitted, Views


class Residual(nn.Module):
    """Norm, widen, activate, narrow, add."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width) in and out."""
        return x + self.body(x)


class Network(nn.Module):
    """Category codes (n, c) and scaled numbers (n, k) in, log-odds (n, 1) out."""

    def __init__(self, levels: list[int], numbers: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        sizes = [min(8, (count + 2) // 2) for count in levels]
        self.embeddings = nn.ModuleList(nn.Embedding(count, size) for count, size in zip(levels, sizes, strict=True))
        self.enter = nn.Linear(sum(sizes) + numbers, width)
        self.blocks = nn.Sequential(*(Residual(width, dropout) for _ in range(blocks)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, codes: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        """The log-odds of label 1."""
        embedded = [embed(codes[:, i]) for i, embed in enumerate(self.embeddings)]
        return self.leave(self.blocks(self.enter(torch.cat([*embedded, numeric], dim=1))))


def fit(train: Views, truth: np.ndarray, tune: Views, tune_truth: np.ndarray, params: dict[str, Any], seed: int) -> Fitted:
    """Fit on `codes` and `numeric`; stop when the tuning loss has not fallen for `patience` epochs, keep the best."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(params["threads"])
    shuffle = np.random.default_rng(seed)
    levels = [int(count) for count in params["levels"]]
    model = Network(levels, train["numeric"].shape[1], params["width"], params["blocks"], params["dropout"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=params["learning_rate"], weight_decay=params["weight_decay"])
    lossf = nn.BCEWithLogitsLoss()
    codes, numeric = torch.from_numpy(train["codes"]), torch.from_numpy(train["numeric"])
    target = torch.from_numpy(truth.astype(np.float32))[:, None]
    tuned = torch.from_numpy(tune_truth.astype(np.float32))[:, None]
    curves: dict[str, list[float]] = {"train_log_loss": [], "tune_log_loss": [], "gradient_norm": []}
    kept, best, best_state, waited, stopped = 0, np.inf, model.state_dict(), 0, f"all {params['epochs']} epochs"
    for epoch in range(params["epochs"]):
        model.train()
        total = steepness = 0.0
        for part in np.array_split(shuffle.permutation(len(target)), max(1, len(target) // params["batch_size"])):
            optimiser.zero_grad()
            loss = lossf(model(codes[part], numeric[part]), target[part])
            loss.backward()
            steepness += float(nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)) * len(part)
            optimiser.step()
            total += float(loss.detach()) * len(part)
        curves["train_log_loss"].append(total / len(target))
        curves["gradient_norm"].append(steepness / len(target))
        curves["tune_log_loss"].append(float(lossf(_logit(model, tune), tuned)))
        if curves["tune_log_loss"][-1] < best:
            kept, best, waited = epoch + 1, curves["tune_log_loss"][-1], 0
            best_state = {key: value.clone() for key, value in model.state_dict().items()}
        else:
            waited += 1
            if waited >= params["patience"]:
                stopped = f"after {epoch + 1} epochs: the tuning loss has not fallen for {waited}"
                break
    model.load_state_dict(best_state)
    model.eval()
    return Fitted(
        logit=lambda views: _logit(model, views).numpy().astype(np.float64).reshape(-1),
        export=lambda: _export(model, train),
        curves=curves,
        kept=kept,
        stopped=stopped,
    )


def _logit(model: Network, views: Views) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        answer: torch.Tensor = model(torch.from_numpy(views["codes"]), torch.from_numpy(views["numeric"]))
    return answer


def _export(model: Network, views: Views) -> onnx.ModelProto:
    buffer = io.BytesIO()
    example = (torch.from_numpy(views["codes"][:2]), torch.from_numpy(views["numeric"][:2]))
    with warnings.catch_warnings():
        # The new exporter needs one more package; see docs/decisions/0003.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            example,
            buffer,
            input_names=["codes", "numeric"],
            output_names=["logit"],
            dynamic_axes={name: {0: "rows"} for name in ("codes", "numeric", "logit")},
            opset_version=18,
            dynamo=False,
        )
    return onnx.load_model_from_string(buffer.getvalue())
