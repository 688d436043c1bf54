"""Independent branches: the control of ONE, OKDDip and PCL.

    L = sum_m CE(y, z_m)

    z_m   logits of branch m, (B, K); all branches share the first stages of the network
    y     labels, (B,)
    M     number of branches, the network's own end included

The same branches at the same cost, with labels alone: no branch learns from another. What a method with branches gains
over this is the worth of its teaching; what this gains over the baseline comes from the shared stages, which get the
gradients of M classifiers. The authors of OKDDip call it "Ind".

The first branch, which is the plain network, is evaluated and deployed. ``BranchEnsemble`` makes a network from all.

State between steps: none. The other branches are in the checkpoint, under ``branches.``.
"""

from distill_lightning.methods.branched import Branched
from distill_lightning.values import Batch, Position, StepOutput


class Branches(Branched):
    """Branches that learn from labels alone. See Branched for the options."""

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce_m`` for each branch; branch 0 is the one that is evaluated."""
        logits, _ = self.logits_of_branches(batch.images)
        return StepOutput({f"ce_{m}": self.cross_entropy(z, batch) for m, z in enumerate(logits)}, logits[0])
