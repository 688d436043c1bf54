"""The verbs of the command, with their descriptions for ``--help``."""

VERBS = {
    "fit": "Train a network, from the start or from a checkpoint, and test it once.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split.",
    "predict": "Write a checkpoint's predictions for the test split, or for a folder of pictures.",
    "bench": "Time a training step of the run, and compare it with a plain PyTorch loop.",
}
OTHER_VERBS = {
    "study": "Train the runs of a study that are not finished, in order, and make its tables.",
    "list": "List runs: their state, their accuracy, and the options that differ.",
    "show": "Show one run: its state, metrics, options, what it was made from, and its next commands.",
    "report": "Make one HTML page from any run folders.",
    "configs": "List, print or copy the configuration files that come with the program.",
    "data": "Show what the data look like, and draw a sheet of training pictures as the network sees them.",
    "export": "Write a trained network as a file for other programs: ONNX, torch.export or safetensors.",
    "compress": "Make a smaller network from a trained one: distil, remove channels, export, measure.",
    "inspect": "List what a file holds and which classes it asks for, without building anything.",
}
"""The verbs that have a parser of their own."""
