"""What the channels of a layer see, in any trained network: ``distill channels RUN --layer NAME``.

taps.py       the output of a layer as maps (B, C, H, W)
field.py      which pixels a cell of a map depends on: its receptive field
scan.py       the strongest pictures of each channel; dead and duplicate channels; channels by class
halves.py     whether classes have several views: what halves of the channels know
occlusion.py  where a picture must not be covered
study.py      all of it for one layer: `Study`
page.py       the page, and the figure for papers
"""

from distill_lightning.channels.field import receptive_field
from distill_lightning.channels.halves import Halves, compare_halves
from distill_lightning.channels.occlusion import occlusion_map
from distill_lightning.channels.page import draw, page
from distill_lightning.channels.scan import Scan, scan
from distill_lightning.channels.study import Study, study
from distill_lightning.channels.taps import Tap

__all__ = [
    "Halves",
    "Scan",
    "Study",
    "Tap",
    "compare_halves",
    "draw",
    "occlusion_map",
    "page",
    "receptive_field",
    "scan",
    "study",
]
