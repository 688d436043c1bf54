"""The command ``distill``: its parser, its error messages, and one file for each verb."""
