"""Beside peers: NeuralForecast, Darts and FreqAI on the same bars, each in an environment of its own."""
