"""The training doctor: from the curves of a run to a verdict in words. Nothing here imports torch.

    curves.py     the curves of a run as plain arrays: `Curves`
    tags.py       which curve a tag stands for, in the spellings of several programs
    reading.py    reads curves from runs, CSVs and TensorBoard's events: `find`, `read`
    measures.py   statistics of curves: `Measures`
    rules.py      from statistics to a verdict
    words.py      the sentences
    advice.py     what to change
    diagnosis.py  all of this for one run: `Diagnosis`, `diagnose`
    examine.py    the diagnoses of files and folders: `examine`
    drawing.py    a plot with the place that a sentence is about: `picture`
    siblings.py   runs that differ in one option: `compared`

The command is `distill_lightning.cli.doctor`. How the rules were found and how often they are right is in
`docs/explanations/doctor.md`.
"""

from distill_lightning.doctor.curves import Curves, Series
from distill_lightning.doctor.diagnosis import LIKELY, Diagnosis, diagnose
from distill_lightning.doctor.drawing import picture
from distill_lightning.doctor.examine import examine

__all__ = ["LIKELY", "Curves", "Diagnosis", "Series", "diagnose", "examine", "picture"]
