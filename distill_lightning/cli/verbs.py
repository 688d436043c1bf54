"""The verbs of the command, and what ``--help`` says of them."""

VERBS = {
    "fit": "Train a network, from the start or from a checkpoint, and test it once.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split.",
    "predict": "Write a checkpoint's predictions for the test split, or for a folder of pictures.",
    "bench": "Time a step of the run beside the bare PyTorch loop.",
}
OTHER_VERBS = {
    "study": "Run what is missing of a study's runs, in order, and make its tables.",
    "report": "Make one HTML page from any run folders.",
    "configs": "List, print or copy the configuration files that come with the program.",
    "inspect": "List what a file is and what it asks for, without building anything.",
}
"""Those that have a parser of their own."""
