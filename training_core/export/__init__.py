"""Trained models in forms that others can use: safetensors, torch.export, ONNX and int8 ONNX, each with its card."""
