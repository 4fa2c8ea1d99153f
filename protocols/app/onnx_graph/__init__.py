"""A model as one ONNX graph, from raw inputs to labels, checked by onnxruntime against the model itself."""
