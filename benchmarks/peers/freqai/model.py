"""An LSTM for FreqAI, in FreqAI's own way with windows: its trainer, its prediction loop, its defaults."""

from __future__ import annotations

import torch
from freqtrade.freqai.prediction_models.PyTorchTransformerRegressor import PyTorchTransformerRegressor
from freqtrade.freqai.torch.PyTorchModelTrainer import PyTorchTransformerTrainer


class _LastStep(torch.nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(inputs, hidden, batch_first=True)
        self.head = torch.nn.Linear(hidden, outputs)

    def forward(self, x_BWF: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x_BWF)[0][:, -1:])


class PeerLSTMRegressor(PyTorchTransformerRegressor):
    """FreqAI's windowed regressor with an LSTM in the transformer's place."""

    def fit(self, data_dictionary, dk, **kwargs):  # type: ignore[no-untyped-def]
        inputs, outputs = (data_dictionary[f"train_{name}"].shape[-1] for name in ("features", "labels"))
        model = _LastStep(inputs, self.model_kwargs["hidden"], outputs).to(self.device)
        trainer = PyTorchTransformerTrainer(
            model=model,
            optimizer=torch.optim.AdamW(model.parameters(), lr=self.learning_rate),
            criterion=torch.nn.MSELoss(),
            device=self.device,
            data_convertor=self.data_convertor,
            window_size=self.window_size,
            tb_logger=self.tb_logger,
            **self.trainer_kwargs,
        )
        trainer.fit(data_dictionary, self.splits)
        return trainer
