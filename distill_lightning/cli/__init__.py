"""The command ``distill``: its parser, its errors, and a file for each verb."""
